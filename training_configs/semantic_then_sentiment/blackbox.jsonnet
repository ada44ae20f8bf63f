// Differentiation of black-box solvers (Vlastelica et al. 2020).
(import 'classifier.libsonnet') {
  model+: { estimator: 'blackbox' },
}
