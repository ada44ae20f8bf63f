(import '../syntactic_then_semantic/modular_pipeline.jsonnet') + (import 'size.libsonnet')
