// Binary SST by sentences: trainable word vectors of 100 dimensions from a random start, as no pre-trained ones are at
// hand, and three epochs (Mihaylova et al. 2020, section 5.2 have GloVe and 50).
local embedder = 'model.text_field_embedder.token_embedders.tokens.';
{
  estimators: [
    'pipeline',
    'ste',
    'ste_marginals',
    { type: 'spigot', num_steps: [1, 5, 10] },
    'spigot_eg',
    'marginals',
    'sparsemap',
    'perturb_and_map',
    'gumbel_softmax',
    'score_function',
    'minimum_risk',
    'imle',
    'blackbox',
  ],
  baselines: ['training_configs/sentiment/none.jsonnet'],
  overrides: {
    [embedder + 'embedding_dim']: [100],
    [embedder + 'pretrained_file']: [null],
    [embedder + 'trainable']: [true],
    'model.encoder.input_size': [100],
    'data_loader.batch_sampler.batch_size': [32],
    'trainer.num_epochs': [3],
  },
  seeds: [1, 2, 3],
}
