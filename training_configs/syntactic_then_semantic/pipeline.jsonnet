// A predicted tree, learned from its own supervision only, jointly with the graph.
(import 'parser.libsonnet') {
  model+: { estimator: 'pipeline' },
}
