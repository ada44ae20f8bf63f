// The family of SPIGOT, by its parts: five projected gradient steps from the SparseMAP solution, with SparseMAP's loss.
(import 'sparsemap.jsonnet') {
  model+: {
    estimator: {
      type: 'pulled_back',
      start: 'sparsemap',
      update: 'projected_gradient',
      intermediate_loss: 'sparsemap',
      step_size: 1.0,
      num_steps: 5,
    },
  },
}
