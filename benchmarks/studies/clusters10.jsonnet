// As `clusters.jsonnet` for ten clusters (SPIGOT_NUM_CLUSTERS=10): 5,000 updates, and a faster decoder.
{
  estimators: [
    { type: 'spigot', step_size: 0.1 },
    { type: 'spigot_ce', step_size: 0.01 },
    { type: 'spigot_eg', step_size: [0.3, 1] },
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
  learning_rates: [0.03],
  overrides: {
    'trainer.num_epochs': [50],
    'trainer.optimizer.parameter_groups': [[[['^scorer'], { lr: 1e-3 }]]],
  },
  seeds: [1, 2, 3],
}
