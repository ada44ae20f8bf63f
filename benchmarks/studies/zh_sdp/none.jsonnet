// No tree.
(import 'latent.jsonnet') {
  model+: { syntax: 'none', syntactic_parser: null },
  dataset_reader: super.validation_dataset_reader,
  train_data_path: std.extVar('SPIGOT_SDP_TRAIN_DATA'),
  data_loader: { batch_sampler: { type: 'bucket', batch_size: 32, sorting_keys: ['tokens'] } },
  trainer+: { grad_norm: 1.0 },
}
