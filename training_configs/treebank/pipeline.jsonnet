(import '../syntactic_then_semantic/pipeline.jsonnet') + (import 'size.libsonnet')
