// The step size of the pulled-back estimators with one learning rate for all, one seed, 2,500 updates.
{
  estimators: [
    { type: name, step_size: [0.001, 0.01, 0.1, 1, 10] }
    for name in ['spigot', 'spigot_ce', 'spigot_eg']
  ],
  learning_rates: [0.01],
  overrides: { 'trainer.num_epochs': [25] },
  seeds: [1],
}
