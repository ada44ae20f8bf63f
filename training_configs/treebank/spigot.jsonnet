(import '../syntactic_then_semantic/spigot.jsonnet') + (import 'size.libsonnet')
