// The upper bound: gold trees, in training and evaluation.
(import 'base.libsonnet') {
  model+: { tree: 'gold' },
}
