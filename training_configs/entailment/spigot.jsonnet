// SPIGOT (Peng et al. 2018).
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'spigot', step_size: 1.0 } },
}
