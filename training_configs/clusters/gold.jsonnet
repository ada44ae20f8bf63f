// The upper bound: gold clusters, in training and evaluation.
(import 'base.libsonnet') {
  model+: { cluster: 'gold' },
}
