(import '../syntactic_then_semantic/marginals.jsonnet') + (import 'size.libsonnet')
