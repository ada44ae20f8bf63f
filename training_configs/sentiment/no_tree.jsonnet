// The baseline: a BiLSTM, and no tree.
(import 'classifier.libsonnet') {
  model+: { tree: 'none' },
}
