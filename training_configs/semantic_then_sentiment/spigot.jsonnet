// SPIGOT (Peng et al. 2018), with the gradient's norm clipped at 5/32 as in the paper.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'spigot', step_size: 1.0, max_gradient_norm: 5 / 32 } },
}
