// The lower bound: the same parser without any tree.
(import 'parser.libsonnet') {
  model+: { syntax: 'none' },
}
