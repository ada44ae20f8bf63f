// The joint pipeline: both parsers share one encoder, which trees and graphs train; nothing of the graph's loss reaches
// the tree's scores.
(import 'latent.jsonnet') {
  local scorer = super.model.graph_head.arc_scorer,
  model+: { syntactic_parser: null, syntactic_head: { arc_scorer: scorer }, estimator: 'pipeline' },
  trainer+: { grad_norm: { '^syntactic_head\\.': 1.0, default: 1.0 } },
}
