// Another formalism: trees and graphs of different sentences, few trees. Configs and data: zh_sdp/latent.jsonnet.
{
  estimators: [
    { type: 'spigot', max_gradient_norm: 1.0 },
    { name: 'structured attention', type: 'marginals', relaxed_evaluation: true },
    { type: 'ste', step_size: 0.1, max_gradient_norm: 1.0 },
  ],
  baselines: [
    'benchmarks/studies/zh_sdp/modular_pipeline.jsonnet',
    'benchmarks/studies/zh_sdp/none.jsonnet',
    'benchmarks/studies/zh_sdp/joint_pipeline.jsonnet',
  ],
  seeds: [1],
}
