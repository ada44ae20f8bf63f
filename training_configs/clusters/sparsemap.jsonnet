// Sparsemax in place of a choice, also in evaluation.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'sparsemap', relaxed_evaluation: true } },
}
