// The family of SPIGOT, by its parts: one gradient step from the marginals, with the perceptron's loss.
(import 'classifier.libsonnet') {
  model+: {
    estimator: {
      type: 'pulled_back',
      start: 'marginals',
      update: 'gradient',
      intermediate_loss: 'perceptron',
      step_size: 0.01,
    },
  },
}
