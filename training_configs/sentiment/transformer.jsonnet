// As latent.jsonnet, on top of a pre-trained transformer.
local transformer = import '../transformer.libsonnet';

(import 'latent.jsonnet') {
  dataset_reader+: { token_indexers: transformer.token_indexers },
  model+: { text_field_embedder: transformer.text_field_embedder, encoder: null },
  trainer+: { optimizer: transformer.optimizer, num_epochs: 5 },
}
