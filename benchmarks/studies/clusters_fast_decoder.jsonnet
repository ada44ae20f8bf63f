// As `clusters.jsonnet` and `clusters10.jsonnet`, with rates at which STE and SPIGOT-EG do better: a decoder that learns fast.
{
  estimators: [
    'ste',
    { type: 'spigot_eg', step_size: 0.03 },
    { type: 'spigot', step_size: 0.1 },
  ],
  learning_rates: [0.1],
  overrides: {
    'trainer.num_epochs': [50],
    'trainer.optimizer.parameter_groups': [[[['^scorer'], { lr: 3e-3 }]]],
  },
  seeds: [1, 2, 3],
}
