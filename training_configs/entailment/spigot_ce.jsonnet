// SPIGOT with the cross-entropy of a CRF as its intermediate loss.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'spigot_ce', step_size: 1.0 } },
}
