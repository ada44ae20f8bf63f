// The expected loss of the five best graphs.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'minimum_risk', k: 5 } },
}
