// SPIGOT with exponentiated gradient steps.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'spigot_eg', step_size: 1.0 } },
}
