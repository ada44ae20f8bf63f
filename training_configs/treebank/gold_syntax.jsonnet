(import '../syntactic_then_semantic/gold_syntax.jsonnet') + (import 'size.libsonnet')
