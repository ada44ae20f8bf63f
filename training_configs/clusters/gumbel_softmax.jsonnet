// The softmax of perturbed scores; evaluated at the argmax.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'gumbel_softmax', temperature: 1.0 } },
}
