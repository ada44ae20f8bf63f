// Nested lists of digits (Nangia and Bowman 2018), evaluated along a tree (Paulus et al. 2020, section 5.2).
// What distinguishes the experiments stands in their own files.
{
  local seed = std.parseInt(std.extVar('SPIGOT_SEED')),
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  // With a seed of its own: one data set, whatever the model's seed.
  dataset_reader: { type: 'listops', seed: 0 },
  // The names of the splits, not of files.
  train_data_path: 'train',
  validation_data_path: 'validation',
  test_data_path: 'test',

  model: {
    type: 'latent_tree_evaluator',
    text_field_embedder: { token_embedders: { tokens: { type: 'embedding', embedding_dim: 60 } } },
    hidden_dim: 128,
    // Of expressions that are five operators deep.
    num_steps: 5,
  },

  data_loader: { batch_sampler: { type: 'bucket', batch_size: 64, sorting_keys: ['tokens'] } },
  validation_data_loader: { batch_sampler: { type: 'bucket', batch_size: 256, sorting_keys: ['tokens'] } },

  trainer: {
    optimizer: { type: 'adam', lr: 2e-3 },
    grad_norm: 5.0,
    num_epochs: 60,
    validation_metric: '+accuracy',
    callbacks: [],
  },
}
