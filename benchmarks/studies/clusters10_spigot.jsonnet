// SPIGOT for ten clusters (SPIGOT_NUM_CLUSTERS=10) with small steps, scorer and decoder at one, low rate; 5,000 updates.
{
  estimators: [{ type: 'spigot', step_size: 0.001 }],
  learning_rates: [0.001],
  overrides: { 'trainer.num_epochs': [50] },
  seeds: [1, 2, 3],
}
