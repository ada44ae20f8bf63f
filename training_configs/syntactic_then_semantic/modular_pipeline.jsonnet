// The modular pipeline, the baseline of Peng et al. (2018): a parser with an encoder of its own, trained apart
// (syntactic_parser.jsonnet) and frozen, then the graph.
(import 'parser.libsonnet') {
  local archive = std.extVar('SPIGOT_PARSER_ARCHIVE'),
  // The parser's vocabulary comes first, so that its embeddings keep their meaning.
  vocabulary: { type: 'extend', directory: archive },
  // With it, the model's archive can be loaded where the parser's is not available.
  include_in_archive: ['syntactic_parser.tar.gz'],
  model+: {
    syntactic_parser: { type: 'from_archive', archive_file: archive },
    frozen_parser: true,
    estimator: 'pipeline',
    syntactic_loss_weight: 0.0,
  },
}
