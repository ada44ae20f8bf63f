// As `semantic_then_sentiment.jsonnet`, with the joint Euclidean projection of an arc and its labels.
local embedder = 'model.text_field_embedder.token_embedders.words.';
{
  estimators: [{ type: 'spigot', max_gradient_norm: 0.15625 }],
  overrides: {
    'model.structure.projection': ['joint'],
    [embedder + 'pretrained_file']: [null],
    'trainer.num_epochs': [3],
  },
  seeds: [1],
}
