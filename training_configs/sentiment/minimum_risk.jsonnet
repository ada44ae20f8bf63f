// The expected loss of the five best trees.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'minimum_risk', k: 5 } },
}
