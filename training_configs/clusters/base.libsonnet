// Classification with a latent cluster: the settings of Mihaylova et al. (2020), section 5.1: full batch, 10,000 updates.
// What distinguishes the experiments stands in their own files.
{
  local seed = std.parseInt(std.extVar('SPIGOT_SEED')),
  local num_clusters = std.parseInt(std.extVar('SPIGOT_NUM_CLUSTERS')),
  random_seed: seed,
  numpy_seed: seed,
  pytorch_seed: seed,

  // With a seed of its own: one data set, whatever the model's seed.
  dataset_reader: { type: 'latent_clusters', num_clusters: num_clusters, seed: 0 },
  // The names of the splits, not of files.
  train_data_path: 'train',
  validation_data_path: 'validation',
  test_data_path: 'test',
  // All labels are numbers.
  vocabulary: { type: 'empty' },

  model: {
    type: 'latent_cluster_classifier',
    num_clusters: num_clusters,
  },

  data_loader: { type: 'full_batch', batches_per_epoch: 100 },
  validation_data_loader: { type: 'full_batch' },

  trainer: {
    optimizer: { type: 'adam', lr: 2e-3 },
    num_epochs: 100,
    validation_metric: '+accuracy',
    callbacks: [],
  },
}
