// A syntactic-then-semantic parser. What distinguishes the experiments stands in their own files.
(import 'data.libsonnet') {
  model: (import 'encoder.libsonnet') {
    type: 'syntactic_then_semantic',
  },
  trainer+: { validation_metric: '+labeled_f1' },
}
