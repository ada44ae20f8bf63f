// Conditioned on a sparse mean of trees (SparseMAP). Evaluated at the argmax, as in the paper.
(import 'classifier.libsonnet') {
  model+: { estimator: 'sparsemap' },
}
