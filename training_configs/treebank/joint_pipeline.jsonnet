(import '../syntactic_then_semantic/joint_pipeline.jsonnet') + (import 'size.libsonnet')
