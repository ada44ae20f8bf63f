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
    "SPIGOT_ESTIMATOR": "spigot",
    "SPIGOT_NUM_CLUSTERS": "3",
    "SPIGOT_PARSER_ARCHIVE": "fixtures/models/syntactic_parser.tar.gz",
    "SPIGOT_SEMANTIC_PARSER_ARCHIVE": "fixtures/models/semantic_parser.tar.gz",
    "SPIGOT_PRUNERS_ARCHIVE": "fixtures/models/pruners.tar.gz",
    "SPIGOT_TRANSFORMER": "bert-base-uncased",
    "SPIGOT_SEED": "13370",
}


# Files of trees, with blanks between them: the fixtures' own, unless the data are others.
_COMPANION = "fixtures/graphs/train.cpn fixtures/graphs/dev.cpn"


def set_defaults() -> None:
    own_data = "SPIGOT_SDP_TRAIN_DATA" in os.environ or "SPIGOT_SDP_VALIDATION_DATA" in os.environ
    os.environ.setdefault("SPIGOT_SDP_COMPANION", "" if own_data else _COMPANION)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
