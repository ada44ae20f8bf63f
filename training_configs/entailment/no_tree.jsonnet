// The baseline: decomposable attention, and no trees.
(import 'classifier.libsonnet') {
  model+: { tree: 'none' },
}
