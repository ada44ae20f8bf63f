// Trees that nothing is learned from: without a gold tree, those of random scores.
(import 'classifier.libsonnet') {
  model+: { estimator: 'pipeline' },
}
