// Structured attention: the graph is conditioned on the tree's marginals, also in evaluation.
(import 'parser.libsonnet') {
  model+: { estimator: { type: 'marginals', relaxed_evaluation: true } },
}
