// Sampled graphs (REINFORCE), with the loss of the best graph as the baseline.
(import 'classifier.libsonnet') {
  model+: { estimator: { type: 'score_function', num_samples: 1, baseline: 'self_critic' } },
}
