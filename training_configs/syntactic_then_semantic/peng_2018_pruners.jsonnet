// The pruners of peng_2018.jsonnet, both in one archive: a small pipeline of a parser for trees and one for graphs, whose
// arcs have probabilities.
local peng = import 'peng_2018.libsonnet';
local encoder = peng.encoder(hidden_size=32, num_layers=1);
local arc_scorer = { type: 'mlp', hidden_dim: 32 };

(import 'two_corpora.jsonnet') + peng.data {
  model: encoder {
    type: 'syntactic_then_semantic',
    syntactic_parser: encoder {
      type: 'syntactic_parser',
      // Its marginals are those that prune.
      syntactic_head: { arc_scorer: arc_scorer, loss: 'crf' },
    },
    estimator: 'pipeline',
    graph_head: { arc_scorer: arc_scorer, label_dim: 32 },
  },
  trainer+: { optimizer: { type: 'adam', lr: 1e-3 }, num_epochs: 10, validation_metric: '+unlabeled_f1' },
}
