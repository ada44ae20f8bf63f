// The straight-through estimator (STE-Identity).
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'ste', step_size: 1.0 } },
}
