// The same recipe for a treebank without enhanced graphs: a parser that predicts trees only.
(import 'parser.jsonnet') {
  dataset_reader+: { graphs: false },
  vocabulary+: { min_count+: { arc_relations:: null } },
  model+: { type: 'syntactic_parser', estimator:: null, graph_head:: null },
  trainer+: { validation_metric: '+las' },
}
