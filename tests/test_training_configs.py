"""Every config in `training_configs/` loads, builds and trains, with nothing but the package and its fixtures."""

import copy
import inspect
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from allennlp.commands.train import TrainModel
from allennlp.common import Params
from allennlp.data import DataLoader, DatasetReader, Instance, Vocabulary
from allennlp.data.data_loaders import SimpleDataLoader
from allennlp.models import Model
from allennlp.training import Trainer

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.external_variables import DEFAULTS
from tests.conftest import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "training_configs"
# A transformer is no part of the package: tests/models/test_pretrained_input.py.
CONFIGS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.jsonnet") if path.stem != "transformer")
# Their readers and loaders are several; tests/models/test_two_corpora.py trains them.
TWO_CORPORA = {f"syntactic_then_semantic/{name}.jsonnet" for name in ("two_corpora", "peng_2018", "peng_2018_pruners")}
SYNTACTIC_THEN_SEMANTIC = {
    *(
        "no_syntax",
        "joint_pipeline",
        "modular_pipeline",
        "spigot",
        "ste",
        "marginals",
        "gold_syntax",
        "syntactic_parser",
    ),
}


@pytest.fixture(autouse=True)
def as_in_the_repository(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PROJECT_ROOT)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)


def load(name: str, **overrides: Any) -> Params:
    return Params.from_file(FOLDER / name, params_overrides=json.dumps(overrides) if overrides else "")


@pytest.mark.parametrize("folder", ["syntactic_then_semantic", "treebank"])
def test_all_experiments_are_there(folder: str):
    assert {path.stem for path in (FOLDER / folder).glob("*.jsonnet")} >= SYNTACTIC_THEN_SEMANTIC


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in TWO_CORPORA])
def test_config(name: str, tmp_path: Path):
    params = load(name)
    reader_params = params.pop("dataset_reader").as_dict(quiet=True)
    validation_params = params.pop("validation_dataset_reader", Params(reader_params)).as_dict(quiet=True)
    several = reader_params["type"] == "multitask"
    paths = [params.pop(f"{part}_data_path", None) for part in ("train", "validation")]
    train = (
        read(reader_params["readers"]["sentiment"], paths[0]["sentiment"]) if several else read(reader_params, paths[0])
    )
    validation = read(validation_params, paths[1])
    vocab = Vocabulary.from_params(params.pop("vocabulary", {}), instances=[*train, *validation])
    model = Model.from_params(params.pop("model"), vocab=vocab)
    trainer_params = params.pop("trainer")
    metric = trainer_params["validation_metric"]

    loader_params = params.pop("data_loader")
    # How several corpora are read together is tested with the models that do so.
    if not several:
        loader = DataLoader.from_params(loader_params, reader=Instances(train), data_path="")
        loader.index_with(vocab)
        assert "loss" in model(**next(iter(loader)))
    loaders = [SimpleDataLoader(some[:8], batch_size=8, vocab=vocab) for some in (train, validation)]
    trainer_params["num_epochs"] = 1
    trainer = Trainer.from_params(
        trainer_params,
        model=model,
        serialization_dir=str(tmp_path),
        data_loader=loaders[0],
        validation_data_loader=loaders[1],
        local_rank=0,
    )
    metrics = trainer.train()
    assert metric[0] in "+-" and f"best_validation_{metric[1:]}" in metrics
    known = inspect.signature(TrainModel.from_partial_objects).parameters.keys()
    # What `train_model` reads itself.
    known = known | {"random_seed", "numpy_seed", "pytorch_seed", "include_in_archive"}
    assert params.params.keys() <= known

    stem = Path(name).stem
    expected = os.environ["SPIGOT_ESTIMATOR"] if stem == "latent" else stem
    if expected in Estimator.list_available():
        assert type(model.estimator) is Estimator.by_name(expected)


def read(reader: Dict[str, Any], path: str) -> List[Instance]:
    return list(DatasetReader.from_params(Params({**copy.deepcopy(reader), "max_instances": 30})).read(path))[:30]


class Instances(DatasetReader):
    """Instances that are there already."""

    def __init__(self, instances: List[Instance]) -> None:
        super().__init__()
        self._instances = instances

    def _read(self, file_path: str) -> Iterator[Instance]:
        yield from self._instances


@pytest.mark.parametrize("name", CONFIGS)
def test_data_come_from_external_variables(name: str, monkeypatch: pytest.MonkeyPatch):
    assert "fixtures/" in json.dumps(load(name).as_dict(quiet=True)) or Path(name).parts[0] in ("clusters", "listops")
    for variable, value in DEFAULTS.items():
        monkeypatch.setenv(variable, "7" if value.isdigit() else f"elsewhere/{variable}")
    config = load(name).as_dict(quiet=True)
    assert "fixtures/" not in json.dumps(config)
    assert config["random_seed"] == config["numpy_seed"] == config["pytorch_seed"] == 7


def test_overrides():
    params = load("treebank/spigot.jsonnet", **{"model.estimator.step_size": 0.5, "trainer.num_epochs": 1})
    config = params.as_dict(quiet=True)
    assert config["model"]["estimator"] == {"type": "spigot", "step_size": 0.5, "max_gradient_norm": 1.0}
    assert config["trainer"]["num_epochs"] == 1 and config["trainer"]["grad_norm"] == 5.0
