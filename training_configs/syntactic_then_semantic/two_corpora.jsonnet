// Trees and graphs of different sentences (Peng et al. 2018, section 4.1): a step takes a batch of either, drawn in
// proportion to how many there are. A batch of trees teaches the syntactic parser alone, by its own loss; a batch of
// graphs teaches both, the syntactic parser through the surrogate.
local data = import 'data.libsonnet';

(import 'parser.libsonnet') {
  // To read graphs from CoNLL-U, use { type: 'conllu_graphs', trees: false }.
  local semantics = { type: 'sdp', trees: false, token_indexers: data.dataset_reader.token_indexers },

  dataset_reader: {
    type: 'multitask',
    readers: { syntax: data.dataset_reader { graphs: false }, semantics: semantics },
  },
  train_data_path: { syntax: std.extVar('SPIGOT_TRAIN_DATA'), semantics: std.extVar('SPIGOT_SDP_TRAIN_DATA') },
  data_loader: {
    type: 'multitask',
    scheduler: { type: 'proportional', batch_size: 16, sorting_keys: ['tokens'] },
  },

  validation_dataset_reader: semantics,
  validation_data_path: std.extVar('SPIGOT_SDP_VALIDATION_DATA'),
  validation_data_loader: { batch_size: 16 },

  model+: {
    syntactic_parser: (import 'encoder.libsonnet') { type: 'syntactic_parser' },
    estimator: { type: 'spigot', step_size: 1.0, max_gradient_norm: 1.0 },
  },
}
