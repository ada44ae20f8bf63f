(import '../syntactic_then_semantic/syntactic_parser.jsonnet') + (import 'size.libsonnet')
