// Trees and graphs of different sentences and formalisms, in the small: 1,000 trees of UD Chinese GSDSimp, the Chinese
// semantic dependency graphs of SemEval-2016 task 9. The published way (Peng et al. 2018, section 4.1): an encoder for
// each parser, arcs scored by two layers of tanh, a batch of either trees or graphs, a gradient clipped at 1 for each parser.
local arc_scorer = { type: 'mlp', hidden_dim: 50, num_layers: 2 };
local encoder = (import '../../../training_configs/syntactic_then_semantic/encoder.libsonnet') {
  word_dim: 50,
  character_dim: 16,
  hidden_size: 64,
  dropout: 0.33,
};

(import '../../../training_configs/syntactic_then_semantic/two_corpora.jsonnet') {
  vocabulary: { min_count: { tokens: 2 } },
  dataset_reader+: { readers+: { semantics+: { type: 'conllu_graphs' } } },
  validation_dataset_reader+: { type: 'conllu_graphs' },
  data_loader: {
    type: 'multitask',
    scheduler: { type: 'proportional', batch_size: 32, sorting_keys: ['tokens'] },
  },
  validation_data_loader: { batch_sampler: { type: 'bucket', batch_size: 64, sorting_keys: ['tokens'] } },
  model+: encoder {
    syntactic_parser: encoder { type: 'syntactic_parser', syntactic_head: { arc_scorer: arc_scorer } },
    graph_head: { arc_scorer: arc_scorer, label_dim: 32 },
    structure: { type: 'projective_tree', projection: 'single_head' },
  },
  trainer+: { grad_norm: { '^syntactic_parser\\.': 1.0, default: 1.0 }, num_epochs: 6 },
}
