// The baseline: a BiLSTM, and no graph. No parser is needed.
local config = import 'base.libsonnet';

(config) {
  dataset_reader: config.validation_dataset_reader { parser_token_indexers: null },
  train_data_path: config.train_data_path.sentiment,
  data_loader: { batch_size: 32, shuffle: true },
  validation_dataset_reader: self.dataset_reader,
  vocabulary: {},
  include_in_archive: [],
  model+: { graph: 'none', semantic_parser: null },
}
