// The latent graph, with the estimator of SPIGOT_ESTIMATOR; for SPIGOT the gradient norm of Peng et al. (2018). Their
// projection, which takes the arcs first, is for steps from a graph: of scores it would leave no arcs.
local estimators = (import '../estimators.libsonnet') { spigot+: { max_gradient_norm: 5 / 32 } };
local projects_scores = ['gumbel_sparsemap', 'pulled_back', 'sparsemap'];

(import 'base.libsonnet') {
  model+: {
    estimator: estimators.chosen,
    structure+: { projection: if std.member(projects_scores, estimators.chosen.type) then 'joint' else 'sequential' },
  },
}
