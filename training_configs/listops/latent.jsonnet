// A latent tree, with the estimator of SPIGOT_ESTIMATOR. Relaxations are evaluated as they are trained.
local estimators = (import '../estimators.libsonnet') {
  marginals+: { relaxed_evaluation: true },
  sparsemap+: { relaxed_evaluation: true },
};

(import 'base.libsonnet') {
  model+: {
    encoder: { type: 'lstm', input_size: 60, hidden_size: 60, bidirectional: true },
    structure: 'nonprojective_tree',
    estimator: estimators.chosen,
  },
}
