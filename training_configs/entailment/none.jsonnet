// The baseline: decomposable attention, and no trees.
(import 'base.libsonnet') {
  model+: { tree: 'none' },
}
