"""
Defaults of the external variables that the files in `training_configs/` read with `std.extVar`.

AllenNLP hands environment variables to jsonnet, where an unset one is an error that cannot be caught. Importing the
package therefore sets those that are not set, to the repository's fixtures: every config loads as it is, and
`SPIGOT_TRAIN_DATA=my.conllu allennlp train ...` reads something else.
"""

import os

DEFAULTS = {
    "SPIGOT_TRAIN_DATA": "fixtures/graphs/train.conllu",
    "SPIGOT_VALIDATION_DATA": "fixtures/graphs/dev.conllu",
    "SPIGOT_SDP_TRAIN_DATA": "fixtures/graphs/train.sdp",
    "SPIGOT_SDP_VALIDATION_DATA": "fixtures/graphs/dev.sdp",
    "SPIGOT_SST_TRAIN_DATA": "fixtures/sst/train.txt",
    "SPIGOT_SST_VALIDATION_DATA": "fixtures/sst/dev.txt",
    "SPIGOT_SNLI_TRAIN_DATA": "fixtures/snli/train.jsonl",
    "SPIGOT_SNLI_VALIDATION_DATA": "fixtures/snli/dev.jsonl",
    "SPIGOT_WORD_VECTORS": "fixtures/vectors/vectors.txt",
    "SPIGOT_WORD_DIM": "10",
    "SPIGOT_NUM_CLUSTERS": "3",
    "SPIGOT_PARSER_ARCHIVE": "fixtures/models/syntactic_parser.tar.gz",
    "SPIGOT_SEMANTIC_PARSER_ARCHIVE": "fixtures/models/semantic_parser.tar.gz",
    "SPIGOT_TRANSFORMER": "bert-base-uncased",
    "SPIGOT_SEED": "13370",
}


def set_defaults() -> None:
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
