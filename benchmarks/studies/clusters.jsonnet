// The categorical latent variable with all estimators, three seeds, 2,500 updates (Mihaylova et al. 2020 have 10,000).
// The scorer learns at a fiftieth of the decoder's rate: otherwise the clusters' scores are driven apart before the
// decoder can tell what they are good for, and two clusters share one latent value for good.
{
  estimators: [
    { type: 'spigot', step_size: 0.1 },
    { type: 'spigot_ce', step_size: 0.01 },
    { type: 'spigot_eg', step_size: 1 },
    'ste',
    'ste_marginals',
    { type: 'marginals', relaxed_evaluation: true },
    { type: 'sparsemap', relaxed_evaluation: true },
    'gumbel_softmax',
    'perturb_and_map',
    { type: 'score_function', baseline: 'self_critic' },
    'minimum_risk',
    'imle',
    'blackbox',
  ],
  baselines: ['training_configs/clusters/gold.jsonnet', 'training_configs/clusters/none.jsonnet'],
  learning_rates: [0.01],
  overrides: {
    'trainer.num_epochs': [25],
    'trainer.optimizer.parameter_groups': [[[['^scorer'], { lr: 2e-4 }]]],
  },
  seeds: [1, 2, 3],
}
