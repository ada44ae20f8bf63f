// The modular pipeline: a parser with an encoder of its own, trained apart (parser.jsonnet), then frozen.
(import 'none.jsonnet') {
  local archive = std.extVar('SPIGOT_PARSER_ARCHIVE'),
  vocabulary+: { type: 'extend', directory: archive },
  model+: {
    syntax: 'latent',
    syntactic_parser: { type: 'from_archive', archive_file: archive },
    frozen_parser: true,
    estimator: 'pipeline',
    syntactic_loss_weight: 0.0,
  },
}
