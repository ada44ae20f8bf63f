// Softmax in place of a choice, also in evaluation.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'marginals', relaxed_evaluation: true } },
}
