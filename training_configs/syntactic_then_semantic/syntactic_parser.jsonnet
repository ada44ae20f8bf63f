// The syntactic parser alone, to be loaded by modular_pipeline.jsonnet.
(import 'data.libsonnet') {
  model: (import 'encoder.libsonnet') {
    type: 'syntactic_parser',
    // Empty, so that `-o` can set single keys of it.
    syntactic_head: {},
  },
  trainer+: { validation_metric: '+uas' },
}
