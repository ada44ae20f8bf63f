"""Training ends where a number is none, and says where that began."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.models import Model
from allennlp.training import TrainerCallback

import spigot_allennlp  # noqa: F401
from tests.conftest import FIXTURES
from tests.training.small import configuration, write_corpus

PARSER = "syntactic_head.arc_scorer"
GRAPH = "graph_head.arc_scorer"
LABELS = "graph_head.labeler"


@TrainerCallback.register("spoil")
class Spoil(TrainerCallback):
    """Makes outputs of a module what they should not be, from the second batch on, or gradients, or a parameter."""

    def __init__(
        self, serialization_dir: str, module: str, value: float = math.nan, row: int = 1, what: str = "output"
    ) -> None:
        super().__init__(serialization_dir)
        self._module, self._value, self._row, self._what = module, value, row, what
        self._seen = 0

    def on_start(self, trainer: Any, is_primary: bool = True, **kwargs) -> None:
        module = trainer.model.get_submodule(self._module)
        if self._what == "output":
            module.register_forward_hook(self._spoil)
        elif self._what == "gradient":
            parameter = next(module.parameters())
            parameter.register_hook(
                lambda gradient: gradient.masked_fill(torch.ones_like(gradient).bool(), self._value)
            )

    def _spoil(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        self._seen += 1
        if self._seen == 1 or not len(output):
            return output
        output = output.clone()
        output[self._row, ..., 1] = self._value
        return output


def train(tmp_path: Path, spoil: dict[str, Any], model: dict[str, Any], **trainer: Any) -> str:
    corpus = write_corpus(tmp_path / "corpus.conllu")
    trainer = {"callbacks": [{"type": "spoil", **spoil}], **trainer}
    config = configuration(corpus, batch_size=3, trainer=trainer, **model)
    with pytest.raises(ValueError, match="NaN or infinite numbers") as error:
        train_model(Params(config), tmp_path / "run")
    return str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    # Of arcs' labels there are as many rows as arcs, so that no row is a sentence's.
    ("module", "sentences"),
    [(PARSER, "4"), (GRAPH, "4"), (LABELS, "3, 4, 5")],
)
def test_scores(module: str, sentences: str, value: float, tmp_path: Path):
    message = train(tmp_path, {"module": module, "value": value}, {})
    assert f"first in the output of {module}" in message and f"; sentences: {sentences}." in message


def test_parameters_and_gradients(tmp_path: Path):
    spoil = {"module": GRAPH, "value": math.nan, "what": "gradient"}
    (tmp_path / "with norm").mkdir()
    message = train(tmp_path / "with norm", spoil, {}, grad_norm=5.0)
    assert "first in the gradient of " in message and "sentences: 0, 1, 2." in message
    message = train(tmp_path, spoil, {})
    assert f"first in the parameter {GRAPH}" in message and "since the last update; sentences: 0, 1, 2." in message


@pytest.mark.parametrize("estimator", ["spigot", "marginals", "score_function", "minimum_risk"])
def test_every_kind_of_estimator(estimator: str, tmp_path: Path):
    model = {"estimator": {"type": estimator, "k": 2} if estimator == "minimum_risk" else estimator}
    assert f"the output of {PARSER}" in train(tmp_path, {"module": PARSER, "value": math.nan}, model)


@pytest.mark.parametrize(
    ("config", "module", "names"),
    [
        ("sentiment/latent", "arc_scorer", "'"),
        ("clusters/latent", "scorer", "number 1 of the batch"),
        ("syntactic_then_semantic/syntactic_parser", "syntactic_head.arc_scorer", "train-"),
    ],
)
def test_every_model(config: str, module: str, names: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(FIXTURES.parent)
    spoil = {"type": "spoil", "module": module}
    params = Params.from_file(f"training_configs/{config}.jsonnet", {"trainer.callbacks": [spoil]})
    with pytest.raises(ValueError, match=f"the output of {module}.*sentences: .*{names}"):
        train_model(params, tmp_path / "run")


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch):
    def forward(*args: Any, **kwargs: Any) -> None:
        raise ValueError("something else")

    monkeypatch.setattr(Model.by_name("syntactic_then_semantic"), "forward", forward)
    with pytest.raises(ValueError, match="^something else$"):
        train_model(Params(configuration(write_corpus(tmp_path / "corpus.conllu"))), tmp_path / "run")


def test_the_batch_is_looked_into_without_the_other_workers(tmp_path: Path, monkeypatch):
    """They do not run it again, and whoever asked them for what they saw would wait for ever."""
    exchanges = []
    monkeypatch.setattr("spigot_allennlp.modules.deterministic_roles.is_distributed", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *args, **kwargs: exchanges.append(args))
    message = train(tmp_path, {"module": GRAPH, "value": math.nan}, {"graph_head": {"deterministic_roles": "observed"}})
    assert f"the output of {GRAPH}" in message
    # One in each of the two batches.
    assert len(exchanges) == 2
