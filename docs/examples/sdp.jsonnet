// Training on SDP files, with the trees of companion files where SPIGOT_SDP_COMPANION names some.
local parser = import '../../training_configs/syntactic_then_semantic/spigot.jsonnet';

parser {
  dataset_reader: {
    type: 'sdp',
    companion: [path for path in std.split(std.extVar('SPIGOT_SDP_COMPANION'), ' ') if path != ''],
    token_indexers: parser.dataset_reader.token_indexers,
  },
  train_data_path: std.extVar('SPIGOT_SDP_TRAIN_DATA'),
  validation_data_path: std.extVar('SPIGOT_SDP_VALIDATION_DATA'),
}
