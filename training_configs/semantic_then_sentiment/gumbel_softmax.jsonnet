// Conditioned on the marginals of perturbed scores.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'gumbel_softmax', temperature: 1.0 } },
}
