// The lower bound: a linear classifier, and no cluster.
(import 'base.libsonnet') {
  model+: { cluster: 'none' },
}
