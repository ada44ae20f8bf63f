// The published settings of Peng, Thomson and Smith (2018, section 4.1). Theirs are the word vectors of GloVe (100
// dimensions), the trees of the Penn Treebank and the graphs of SemEval 2015 task 18 (DM or PSD).
local word_dim = std.parseInt(std.extVar('SPIGOT_WORD_DIM'));
local hidden_size = 200;
local mlp_dim = 100;

local indexers(pos) = {
  tokens: { type: 'single_id', lowercase_tokens: true },
  lemmas: { type: 'single_id', namespace: 'lemmas', feature_name: 'lemma_' },
  pos: { type: 'single_id', namespace: 'pos', feature_name: pos },
};

local encoder = {
  text_field_embedder: {
    token_embedders: {
      tokens: {
        type: 'embedding_with_word_dropout',
        alpha: 0.25,
        embedding_dim: word_dim,
        pretrained_file: std.extVar('SPIGOT_WORD_VECTORS'),
      },
      lemmas: { type: 'embedding', embedding_dim: 50, vocab_namespace: 'lemmas' },
      pos: { type: 'embedding', embedding_dim: 50, vocab_namespace: 'pos' },
    },
  },
  encoder: {
    type: 'padded_lstm',
    input_size: word_dim + 50 + 50,
    hidden_size: hidden_size,
    num_layers: 2,
    bidirectional: true,
  },
};
local arc_scorer = { type: 'mlp', hidden_dim: mlp_dim, num_layers: 2 };

(import 'two_corpora.jsonnet') {
  dataset_reader+: {
    readers+: {
      // The same tags, those of the Penn Treebank, in both.
      syntax+: { token_indexers: indexers('tag_') },
      semantics+: { token_indexers: indexers('pos_') },
    },
  },
  validation_dataset_reader+: { token_indexers: indexers('pos_') },
  data_loader+: { scheduler+: { batch_size: 1 } },
  // Of the training data alone, so that the counts for the word dropout are.
  datasets_for_vocab_creation: ['train'],

  model: encoder {
    type: 'syntactic_then_semantic',
    syntactic_parser: encoder {
      type: 'syntactic_parser',
      syntactic_head: {
        arc_scorer: arc_scorer,
        loss: { type: 'hinge', false_positive_cost: 0.5, false_negative_cost: 0.5 },
      },
    },
    // The structure decodes by Eisner's algorithm; the pull-back projects onto the relaxation.
    structure: { type: 'projective_tree', single_root: true, projection: 'single_head' },
    estimator: { type: 'spigot', step_size: 1.0, max_gradient_norm: 1.0 },
    graph_head: {
      arc_scorer: arc_scorer,
      loss: { type: 'hinge', false_positive_cost: 0.4, false_negative_cost: 0.6 },
      label_dim: mlp_dim,
      predicate_dim: mlp_dim,
      deterministic_roles: 'observed',
    },
    // Optional, as both parsers can be pruned by first-order ones, trained before: in both heads
    //   pruner: { model: { type: 'from_archive', archive_file: ... }, threshold: 1e-4 },
    // and, beside the model, so that its archive needs no other:
    //   include_in_archive: [
    //     'syntactic_parser.syntactic_head.pruner.model.tar.gz',
    //     'graph_head.pruner.model.tar.gz',
    //   ],
  },

  trainer+: {
    optimizer: { type: 'adam', lr: 1e-3 },
    // For each parser its own, as from an optimizer for each: with one for both, the surrogate is drowned.
    grad_norm: { '^syntactic_parser\\.': 1.0, default: 1.0 },
    learning_rate_scheduler: { type: 'step', step_size: 10, gamma: 0.5 },
    num_epochs: 30,
  },
}
