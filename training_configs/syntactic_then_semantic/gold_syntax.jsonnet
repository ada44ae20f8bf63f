// The upper bound: conditioned on gold trees, in training and evaluation.
(import 'parser.libsonnet') {
  model+: { syntax: 'gold' },
}
