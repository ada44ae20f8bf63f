"""Models that are trained as a config says, and what `allennlp predict` makes of files with them."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, List
from unittest import mock

import pytest
from allennlp.commands import main
from allennlp.commands.train import train_model
from allennlp.common import Params

from tests.conftest import PROJECT_ROOT


def train(config: str, directory: Path, **overrides: Any) -> Path:
    """The archive of a config in `training_configs/`."""
    changes = json.dumps({"trainer.cuda_device": -1, **overrides})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT_ROOT)
        train_model(Params.from_file(str(PROJECT_ROOT / "training_configs" / config), changes), str(directory))
    return directory / "model.tar.gz"


def predict(archive: Path, input_file: Path, *options: str) -> List[Dict[str, Any]]:
    output = input_file.parent / "output.jsonl"
    command = ["allennlp", "predict", str(archive), str(input_file), "--output-file", str(output), "--silent"]
    with mock.patch.object(sys, "argv", [*command, *options]):
        main()
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
