// As latent.jsonnet, with a classifier on top of a pre-trained transformer. The parser has the input that it was trained with, which
// may be a transformer too.
local transformer = import '../transformer.libsonnet';
local config = import 'latent.jsonnet';

(config) {
  local sentiment = config.validation_dataset_reader { token_indexers: transformer.token_indexers },
  dataset_reader+: { readers+: { sentiment: sentiment } },
  validation_dataset_reader: sentiment,
  model+: { text_field_embedder: transformer.text_field_embedder, encoder: null },
  trainer+: { optimizer: transformer.optimizer, num_epochs: 5 },
}
