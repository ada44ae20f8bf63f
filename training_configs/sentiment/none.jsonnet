// The baseline: a BiLSTM, and no tree.
(import 'base.libsonnet') {
  model+: { tree: 'none' },
}
