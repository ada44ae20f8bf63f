"""
Makes `fixtures/models/syntactic_parser.tar.gz`: a small, pre-trained syntactic parser, which
`training_configs/*/pipeline_pretrained.jsonnet` loads by default.

    python scripts/make_model_fixture.py

It is kept in the repository, instead of being made where it is needed, so that the tests also say whether archives
of earlier versions can still be loaded.
"""

import json
import shutil
import tempfile
from pathlib import Path

import _jsonnet
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params

import spigot_allennlp  # noqa: F401
from spigot_allennlp.external_variables import DEFAULTS

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / DEFAULTS["SPIGOT_PARSER_ARCHIVE"]

CONFIG = """
(import 'training_configs/syntactic_then_semantic/syntactic_parser.jsonnet') {
  model+: {
    word_dim:: 8, character_dim:: 8, hidden_size:: 16,
    arc_scorer: { arc_dim: 16 },
    label_dim: 4,
    dropout: 0.0,
  },
  data_loader+: { batch_sampler+: { batch_size: 16 } },
  trainer+: { optimizer+: { lr: 1e-2 }, num_epochs: 15 },
}
"""


def main() -> None:
    torch.set_num_threads(1)
    # The archive holds the paths of the data: as everybody has them, seen from the repository.
    config = json.loads(_jsonnet.evaluate_snippet(f"{ROOT}/fixture.jsonnet", CONFIG, ext_vars=DEFAULTS))
    with tempfile.TemporaryDirectory() as directory:
        model = train_model(Params(config), directory, force=True)
        assert model is not None
        ARCHIVE.parent.mkdir(exist_ok=True)
        shutil.copyfile(Path(directory) / "model.tar.gz", ARCHIVE)


if __name__ == "__main__":
    main()
