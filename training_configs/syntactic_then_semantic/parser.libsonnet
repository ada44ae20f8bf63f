// A syntactic-then-semantic parser. What distinguishes the experiments stands in their own files.
(import 'data.libsonnet') {
  model: (import 'encoder.libsonnet') {
    type: 'syntactic_then_semantic',
    // Empty, so that `-o` can set single keys of it.
    graph_head: {},
  },
  trainer+: { validation_metric: '+labeled_f1' },
}
