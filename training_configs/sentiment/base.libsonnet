// Binary sentiment of sentences with a latent dependency tree: the settings of Mihaylova et al. (2020), section 5.2.
// What distinguishes the experiments stands in their own files.
{
  local seed = std.parseInt(std.extVar('SPIGOT_SEED')),
  local word_vectors = std.extVar('SPIGOT_WORD_VECTORS'),
  local word_dim = std.parseInt(std.extVar('SPIGOT_WORD_DIM')),
  local hidden_size = 50,
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  dataset_reader: {
    type: 'sst_trees',
    granularity: '2-class',
  },
  train_data_path: std.extVar('SPIGOT_SST_TRAIN_DATA'),
  validation_data_path: std.extVar('SPIGOT_SST_VALIDATION_DATA'),

  model: {
    type: 'latent_tree_classifier',
    text_field_embedder: {
      token_embedders: {
        tokens: { type: 'embedding', embedding_dim: word_dim, pretrained_file: word_vectors, trainable: false },
      },
    },
    encoder: { type: 'padded_lstm', input_size: word_dim, hidden_size: hidden_size, bidirectional: true },
    arc_scorer: { type: 'mlp', hidden_dim: 100 },
    structure: { type: 'projective_tree', single_root: false },
    hidden_dim: 100,
  },

  data_loader: {
    batch_sampler: { type: 'bucket', batch_size: 8, sorting_keys: ['tokens'] },
  },

  trainer: {
    optimizer: { type: 'adamw', lr: 1e-3, weight_decay: 1e-4 },
    num_epochs: 50,
    validation_metric: '+accuracy',
    callbacks: [],
  },
}
