// SPIGOT-CE and SPIGOT-EG for three clusters at other learning rates than in `clusters.jsonnet`; 5,000 updates.
{
  estimators: [
    { type: 'spigot_ce', step_size: 0.03 },
    { type: 'spigot_eg', step_size: 1 },
  ],
  learning_rates: [0.03],
  overrides: {
    'trainer.num_epochs': [50],
    'trainer.optimizer.parameter_groups': [[[['^scorer'], { lr: 1e-3 }]], [[['^scorer'], { lr: 3e-4 }]]],
  },
  seeds: [1, 2, 3],
}
