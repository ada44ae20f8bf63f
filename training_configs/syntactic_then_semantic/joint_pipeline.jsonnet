// The joint pipeline: a predicted tree, whose scores learn from its own supervision only. It has the graph's encoder, which
// the graph's loss trains too.
(import 'parser.libsonnet') {
  model+: { estimator: 'pipeline' },
}
