// The expected loss over all clusters.
(import 'classifier.libsonnet') {
  model+: { estimator: 'minimum_risk' },
}
