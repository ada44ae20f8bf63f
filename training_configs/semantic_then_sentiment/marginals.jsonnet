// Structured attention: conditioned on the marginals. Evaluated at the argmax, as in the paper; `relaxed_evaluation: true`
// evaluates what is trained.
(import 'classifier.libsonnet') {
  model+: { estimator: 'marginals' },
}
