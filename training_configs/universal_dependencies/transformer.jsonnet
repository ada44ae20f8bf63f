// The same parser on a pre-trained transformer in place of word vectors, characters and LSTM. SPIGOT_TRANSFORMER is a
// folder (scripts/fetch_pretrained.py writes a small one's) or a name on the Hugging Face Hub.
local transformer = import '../transformer.libsonnet';

(import 'parser.jsonnet') {
  dataset_reader+: { token_indexers: transformer.token_indexers },
  vocabulary: { min_count: { arc_relations: 3 } },
  model+: {
    text_field_embedder: transformer.text_field_embedder,
    encoder: null,
    initializer:: null,
  },
  trainer+: {
    optimizer: {
      type: 'huggingface_adamw',
      lr: 1e-3,
      // The transformer itself, which is trained already, takes small steps.
      parameter_groups: [[['.*transformer_model.*'], { lr: 1e-4 }]],
    },
    num_epochs: 6,
    grad_norm: 5.0,
  },
}
