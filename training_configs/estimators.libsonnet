// The settings of each estimator. A config takes those of the external variable SPIGOT_ESTIMATOR; an estimator that is not
// in the table is taken with its defaults.
{
  blackbox: { type: 'blackbox' },
  gumbel_softmax: { type: 'gumbel_softmax', temperature: 1.0 },
  gumbel_sparsemap: { type: 'gumbel_sparsemap', temperature: 1.0 },
  identity: { type: 'identity', projection: 'centered' },
  imle: { type: 'imle' },
  marginals: { type: 'marginals' },
  minimum_risk: { type: 'minimum_risk', k: 5 },
  perturb_and_map: { type: 'perturb_and_map', temperature: 1.0 },
  perturbed: { type: 'perturbed', num_samples: 10 },
  pipeline: { type: 'pipeline' },
  // Five projected gradient steps from the SparseMAP solution, with SparseMAP's loss.
  pulled_back: {
    type: 'pulled_back',
    start: 'sparsemap',
    update: 'projected_gradient',
    intermediate_loss: 'sparsemap',
    step_size: 1.0,
    num_steps: 5,
  },
  // Independent choices only: clusters.
  reinmax: { type: 'reinmax' },
  score_function: { type: 'score_function', num_samples: 1, baseline: 'self_critic' },
  sparse_marginalization: { type: 'sparse_marginalization', distribution: 'top_k', k: 5 },
  sparsemap: { type: 'sparsemap' },
  spigot: { type: 'spigot', step_size: 1.0 },
  spigot_ce: { type: 'spigot_ce', step_size: 1.0 },
  spigot_eg: { type: 'spigot_eg', step_size: 1.0 },
  ste: { type: 'ste', step_size: 1.0 },
  ste_marginals: { type: 'ste_marginals' },

  // The settings of the estimator that was chosen.
  chosen::
    local name = std.extVar('SPIGOT_ESTIMATOR');
    if std.objectHas(self, name) then self[name] else { type: name },
}
