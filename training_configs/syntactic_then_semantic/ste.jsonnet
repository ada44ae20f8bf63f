// The straight-through estimator, with the gradient's norm clipped as for SPIGOT.
(import 'parser.libsonnet') {
  model+: { estimator: { type: 'ste', step_size: 1.0, max_gradient_norm: 1.0 } },
}
