// The syntactic parser of the modular pipeline: trees alone.
local latent = import 'latent.jsonnet';
latent {
  dataset_reader: super.dataset_reader.readers.syntax,
  train_data_path: std.extVar('SPIGOT_TRAIN_DATA'),
  validation_dataset_reader:: null,
  validation_data_path:: null,
  validation_data_loader:: null,
  data_loader: { batch_sampler: { type: 'bucket', batch_size: 32, sorting_keys: ['tokens'] } },
  model: latent.model.syntactic_parser,
  trainer+: { grad_norm: 1.0, validation_metric:: null },
}
