// Argmax forward, the gradient through the softmax (STE-S).
(import 'classifier.libsonnet') {
  model+: { estimator: 'ste_marginals' },
}
