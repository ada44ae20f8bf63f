// Conditioned on a sparse mean of graphs (SparseMAP). Evaluated at the argmax, as in the paper. The sequential projection,
// which adds up the values of an arc's labels, is for steps from a graph; of scores it would leave no arcs.
(import 'classifier.libsonnet') {
  model+: { estimator: 'sparsemap', structure: { type: 'labeled_arc_graph', projection: 'joint' } },
}
