// Argmax forward, the gradient through the marginals (STE-S).
(import 'classifier.libsonnet') {
  model+: { estimator: 'ste_marginals' },
}
