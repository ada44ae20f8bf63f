"""
Makes the small, pre-trained parsers in `fixtures/models`, which configs load by default: `syntactic_parser.tar.gz`
(`training_configs/*/modular_pipeline.jsonnet`), `semantic_parser.tar.gz`
(`training_configs/semantic_then_sentiment`) and `pruners.tar.gz` (`syntactic_then_semantic/peng_2018.jsonnet`).

    python scripts/make_model_fixture.py [syntactic_parser] [semantic_parser] [pruners]

They are kept in the repository, instead of being made where they are needed, so that the tests also say whether
archives of earlier versions can still be loaded.
"""

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import _jsonnet
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params

import spigot_allennlp  # noqa: F401
from spigot_allennlp.external_variables import DEFAULTS

ROOT = Path(__file__).resolve().parent.parent

CONFIGS = {
    "syntactic_parser": """
(import 'training_configs/syntactic_then_semantic/syntactic_parser.jsonnet') {
  model+: {
    word_dim:: 8, character_dim:: 8, hidden_size:: 16,
    syntactic_head: { arc_scorer: { arc_dim: 16 }, label_dim: 4 },
    dropout: 0.0,
  },
  data_loader+: { batch_sampler+: { batch_size: 16 } },
  trainer+: { optimizer+: { lr: 1e-2 }, num_epochs: 15 },
}
""",
    "pruners": """
local peng = import 'training_configs/syntactic_then_semantic/peng_2018.libsonnet';
local encoder = peng.encoder(hidden_size=6, num_layers=1, feature_dim=4);
local heads = { arc_scorer: { type: 'mlp', hidden_dim: 6 }, label_dim: 2 };
(import 'training_configs/syntactic_then_semantic/peng_2018_pruners.jsonnet') {
  model+: encoder {
    syntactic_parser+: encoder { syntactic_head+: heads },
    graph_head: heads,
  },
  trainer+: { optimizer+: { lr: 1e-2 } },
}
""",
    "semantic_parser": """
(import 'training_configs/syntactic_then_semantic/no_syntax.jsonnet') {
  model+: {
    word_dim:: 4, character_dim:: 4, hidden_size:: 8,
    text_field_embedder+: { token_embedders+: { characters+: {
      embedding: { embedding_dim: 4, vocab_namespace: 'token_characters' },
      encoder+: { embedding_dim: 4 },
    } } },
    graph_head: { arc_scorer: { arc_dim: 8 }, label_dim: 3 },
    dropout: 0.0,
  },
  trainer+: { optimizer+: { lr: 2e-2 }, num_epochs: 30 },
}
""",
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CONFIGS:
        # The archive holds the paths of the data: as everybody has them, seen from the repository.
        config = json.loads(_jsonnet.evaluate_snippet(f"{ROOT}/fixture.jsonnet", CONFIGS[name], ext_vars=DEFAULTS))
        with tempfile.TemporaryDirectory() as directory:
            assert train_model(Params(config), directory, force=True) is not None
            archive = ROOT / "fixtures" / "models" / f"{name}.tar.gz"
            archive.parent.mkdir(exist_ok=True)
            if name == "syntactic_parser":
                shutil.copyfile(Path(directory) / "model.tar.gz", archive)
            else:
                write_small(Path(directory), archive)


def write_small(directory: Path, archive: Path) -> None:
    """The same archive, its weights rounded to the precision of bfloat16, which compresses to half of the size."""
    weights = torch.load(directory / "best.th", weights_only=True)
    rounded = {name: tensor.bfloat16().to(tensor.dtype) for name, tensor in weights.items()}
    torch.save(rounded, directory / "weights.th")
    with tarfile.open(archive, "w:gz", compresslevel=9) as file:
        for name in ("config.json", "weights.th", "vocabulary", "meta.json"):
            file.add(directory / name, name)


if __name__ == "__main__":
    main()
