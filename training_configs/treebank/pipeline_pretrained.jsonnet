(import '../syntactic_then_semantic/pipeline_pretrained.jsonnet') + (import 'size.libsonnet')
