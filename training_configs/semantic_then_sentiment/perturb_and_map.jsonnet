// Argmax of perturbed scores, the gradient through their marginals.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'perturb_and_map', temperature: 1.0 } },
}
