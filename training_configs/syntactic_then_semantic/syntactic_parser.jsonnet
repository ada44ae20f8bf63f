// The syntactic parser alone, to be loaded by modular_pipeline.jsonnet.
(import 'data.libsonnet') {
  model: (import 'encoder.libsonnet') {
    type: 'syntactic_parser',
  },
  trainer+: { validation_metric: '+uas' },
}
