// Trees that nothing is learned from: without gold trees, the trees of random scores.
(import 'classifier.libsonnet') {
  model+: { estimator: 'pipeline' },
}
