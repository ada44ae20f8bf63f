// SPIGOT, with the gradient's norm clipped at 1 as in Peng et al. (2018).
(import 'parser.libsonnet') {
  model+: { estimator: { type: 'spigot', step_size: 1.0, max_gradient_norm: 1.0 } },
}
