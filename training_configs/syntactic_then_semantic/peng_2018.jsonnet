// The published settings of Peng, Thomson and Smith (2018, section 4.1). Theirs are the word vectors of GloVe (100
// dimensions), the trees of the Penn Treebank and the graphs of SemEval 2015 task 18 (DM or PSD). Train the pruners first
// (peng_2018_pruners.jsonnet); SPIGOT_PRUNERS_ARCHIVE is their archive.
local peng = import 'peng_2018.libsonnet';
local mlp_dim = 100;
local encoder = peng.encoder(hidden_size=200, num_layers=2);
local archive = std.extVar('SPIGOT_PRUNERS_ARCHIVE');
local pruner = { model: { type: 'from_archive', archive_file: archive }, threshold: 1e-4 };

(import 'two_corpora.jsonnet') + peng.data {
  // The pruners' vocabulary comes first, so that their embeddings keep their meaning.
  vocabulary: { type: 'extend', directory: archive },
  // With them, the model's archive can be loaded where the pruners' is not available.
  include_in_archive: [
    'syntactic_parser.syntactic_head.pruner.model.tar.gz',
    'graph_head.pruner.model.tar.gz',
  ],
  data_loader+: { scheduler+: { batch_size: 1 } },

  model: encoder {
    type: 'syntactic_then_semantic',
    syntactic_parser: encoder {
      type: 'syntactic_parser',
      syntactic_head: {
        arc_scorer: { type: 'mlp', hidden_dim: mlp_dim, num_layers: 2 },
        loss: { type: 'hinge', false_positive_cost: 0.5, false_negative_cost: 0.5 },
        pruner: pruner,
      },
    },
    // The structure decodes by Eisner's algorithm; the pull-back projects onto the relaxation.
    structure: { type: 'projective_tree', single_root: true, projection: 'single_head' },
    estimator: { type: 'spigot', step_size: 1.0, max_gradient_norm: 1.0 },
    graph_head: {
      type: 'mlp',
      hidden_dim: mlp_dim,
      // The costs suit pruned graphs and an update for each sentence. Otherwise a false_positive_cost that is low, or
      // that rises from 0 ({ type: 'linear', ... }), is learned from faster.
      loss: { type: 'hinge', false_positive_cost: 0.4, false_negative_cost: 0.6 },
      deterministic_roles: 'observed',
      pruner: pruner { max_arguments: 20 },
      pos_pairs: {},
    },
  },

  trainer+: {
    optimizer: { type: 'adam', lr: 1e-3 },
    // For each parser its own, as from an optimizer for each: with one for both, the surrogate is drowned.
    grad_norm: { '^syntactic_parser\\.': 1.0, default: 1.0 },
    learning_rate_scheduler: { type: 'step', step_size: 10, gamma: 0.5 },
    num_epochs: 30,
  },
}
