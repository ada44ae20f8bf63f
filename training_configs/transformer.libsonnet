// A pre-trained transformer in place of word embeddings and LSTM. SPIGOT_TRANSFORMER is a name on the Hugging Face Hub, or
// a folder. A word's vector is the mean of its pieces' vectors.
{
  local name = std.extVar('SPIGOT_TRANSFORMER'),
  token_indexers: { tokens: { type: 'pretrained_transformer_mismatched', model_name: name } },
  text_field_embedder: {
    token_embedders: { tokens: { type: 'pretrained_transformer_mismatched', model_name: name } },
  },
  optimizer: {
    type: 'huggingface_adamw',
    lr: 1e-3,
    // The transformer itself, which is trained already, takes small steps.
    parameter_groups: [[['.*transformer_model.*'], { lr: 2e-5 }]],
  },
}
