// What every parser here reads, how its batches are made, and how it is trained.
{
  local seed = std.parseInt(std.extVar('SPIGOT_SEED')),
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  dataset_reader: {
    type: 'conllu_graphs',
    // Labels without their lexical suffixes: nmod:of -> nmod.
    labels: 'coarse',
    token_indexers: {
      tokens: { type: 'single_id', lowercase_tokens: true },
      characters: { type: 'characters', min_padding_length: 3 },
    },
  },
  train_data_path: std.extVar('SPIGOT_TRAIN_DATA'),
  validation_data_path: std.extVar('SPIGOT_VALIDATION_DATA'),

  data_loader: {
    batch_sampler: { type: 'bucket', batch_size: 16, sorting_keys: ['tokens'] },
  },

  trainer: {
    optimizer: { type: 'adam', lr: 2e-3, betas: [0.9, 0.9] },
    num_epochs: 25,
    grad_norm: 5.0,
    callbacks: [],
  },
}
