// Sampled clusters (REINFORCE), with the loss of the best cluster as the baseline.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'score_function', baseline: 'self_critic' } },
}
