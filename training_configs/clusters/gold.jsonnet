// The upper bound: gold clusters, in training and evaluation.
(import 'classifier.libsonnet') {
  model+: { cluster: 'gold' },
}
