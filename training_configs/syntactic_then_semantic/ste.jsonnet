// The straight-through estimator. Nothing keeps its steps in the polytope: with SPIGOT's step size it adds to all scores
// of a word alike, which no other loss opposes, and training diverges.
(import 'parser.libsonnet') {
  model+: { estimator: { type: 'ste', step_size: 0.1, max_gradient_norm: 1.0 } },
}
