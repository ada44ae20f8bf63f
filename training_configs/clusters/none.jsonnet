// The lower bound: a linear classifier, and no cluster.
(import 'classifier.libsonnet') {
  model+: { cluster: 'none' },
}
