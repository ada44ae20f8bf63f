(import '../syntactic_then_semantic/ste.jsonnet') + (import 'size.libsonnet')
