// The latent trees, with the estimator of SPIGOT_ESTIMATOR.
(import 'base.libsonnet') {
  model+: { estimator: (import '../estimators.libsonnet').chosen },
}
