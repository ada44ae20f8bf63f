// Implicit maximum likelihood (Niepert et al. 2021).
(import 'classifier.libsonnet') {
  model+: { estimator: 'imle' },
}
