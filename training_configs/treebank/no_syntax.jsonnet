(import '../syntactic_then_semantic/no_syntax.jsonnet') + (import 'size.libsonnet')
