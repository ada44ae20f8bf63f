// SPIGOT with the cross-entropy of the graph as its intermediate loss.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'spigot_ce', step_size: 1.0 } },
}
