// The parser as it is: of the classifier's loss nothing reaches it, and nothing is interleaved.
local config = import 'base.libsonnet';

(config) {
  dataset_reader: config.validation_dataset_reader,
  train_data_path: config.train_data_path.sentiment,
  data_loader: { batch_size: 32, shuffle: true },
  model+: { estimator: 'pipeline', frozen_parser: true },
}
