// As `sentiment.jsonnet`, with what projects marginals, which takes long: they have most arcs.
local embedder = 'model.text_field_embedder.token_embedders.tokens.';
{
  estimators: [
    { type: 'spigot_ce', step_size: [0.1] },
  ],
  overrides: {
    [embedder + 'embedding_dim']: [100],
    [embedder + 'pretrained_file']: [null],
    [embedder + 'trainable']: [true],
    'model.encoder.input_size': [100],
    'data_loader.batch_sampler.batch_size': [32],
    'trainer.num_epochs': [3],
  },
  seeds: [1, 2],
}
