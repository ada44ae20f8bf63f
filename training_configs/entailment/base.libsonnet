// Natural language inference with a latent tree over each sentence: the settings of Mihaylova et al. (2020), section 5.3,
// on top of decomposable attention (Parikh et al. 2016). What distinguishes the experiments stands in their own files.
{
  local seed = std.parseInt(std.extVar('SPIGOT_SEED')),
  local word_vectors = std.extVar('SPIGOT_WORD_VECTORS'),
  local word_dim = std.parseInt(std.extVar('SPIGOT_WORD_DIM')),
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  dataset_reader: { type: 'snli_pairs' },
  train_data_path: std.extVar('SPIGOT_SNLI_TRAIN_DATA'),
  validation_data_path: std.extVar('SPIGOT_SNLI_VALIDATION_DATA'),

  model: {
    type: 'latent_tree_entailment',
    text_field_embedder: {
      token_embedders: {
        tokens: { type: 'embedding', embedding_dim: word_dim, pretrained_file: word_vectors, trainable: false },
      },
    },
    arc_scorer: { type: 'mlp', hidden_dim: 200 },
    structure: { type: 'nonprojective_tree', single_root: false },
    hidden_dim: 200,
    dropout: 0.2,
  },

  data_loader: {
    batch_sampler: { type: 'bucket', batch_size: 64, sorting_keys: ['premise', 'hypothesis'] },
  },

  trainer: {
    optimizer: { type: 'adamw', lr: 1e-3 },
    num_epochs: 50,
    validation_metric: '+accuracy',
    callbacks: [],
  },
}
