// The latent cluster, with the estimator of SPIGOT_ESTIMATOR. Relaxations are evaluated as they are trained.
local estimators = (import '../estimators.libsonnet') {
  marginals+: { relaxed_evaluation: true },
  sparsemap+: { relaxed_evaluation: true },
  sparse_marginalization: { type: 'sparse_marginalization' },
};

(import 'base.libsonnet') {
  model+: { estimator: estimators.chosen },
}
