// The expected loss of the five best pairs of trees.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'minimum_risk', k: 5 } },
}
