// As `sentiment.jsonnet`, with Peng et al.'s relaxation as the projection.
local embedder = 'model.text_field_embedder.token_embedders.tokens.';
{
  estimators: [
    'spigot',
    { type: 'spigot_ce', step_size: [0.1, 1] },
    {
      type: 'pulled_back',
      start: 'marginals',
      update: 'projected_gradient',
      intermediate_loss: 'cross_entropy',
      num_steps: 5,
    },
  ],
  overrides: {
    'model.structure.projection': ['single_head'],
    [embedder + 'embedding_dim']: [100],
    [embedder + 'pretrained_file']: [null],
    [embedder + 'trainable']: [true],
    'model.encoder.input_size': [100],
    'data_loader.batch_sampler.batch_size': [32],
    'trainer.num_epochs': [3],
  },
  seeds: [1, 2, 3],
}
