"""AllenNLP's own trainer: accumulation and data-parallel workers learn what one large batch teaches."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from allennlp.commands import main
from allennlp.commands.train import train_model
from allennlp.common import Params

from tests.conftest import PROJECT_ROOT
from tests.training.small import configuration, write_corpus

# Several estimators in one training are several trainings: two that differ in how their surrogate gets into the graph.
ESTIMATORS = [{"type": "spigot", "step_size": 5.0}, {"type": "spigot_ce", "num_steps": 2}]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state = torch.load(directory / "best.th")
    # A counter of batches, of which accumulation has more.
    return {name: value for name, value in state.items() if name != "syntactic_loss_weight.step"}


def assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def run_command(directory: Path, params: dict[str, Any]) -> dict[str, Any]:
    """`allennlp train` as a user types it; workers are processes of their own."""
    config = directory / "config.json"
    config.write_text(json.dumps(params))
    command = ["allennlp", "train", str(config), "-s", str(directory / "run")]
    command += ["--include-package", "spigot_allennlp", "--include-package", "tests.training.small"]
    with mock.patch.object(sys, "argv", command):
        main()
    return json.loads((directory / "run" / "metrics_epoch_1.json").read_text())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_gradient_accumulation(tmp_path, estimator):
    corpus = write_corpus(tmp_path / "corpus.conllu")
    train_model(Params(configuration(corpus, estimator, batch_size=4)), tmp_path / "large")
    trainer = {"num_gradient_accumulation_steps": 2}
    train_model(Params(configuration(corpus, estimator, batch_size=2, trainer=trainer)), tmp_path / "small")
    assert_same_weights(weights(tmp_path / "small"), weights(tmp_path / "large"))
    # Which is no statement about a training that goes nowhere, or without the surrogate.
    train_model(Params(configuration(corpus, "pipeline", batch_size=4)), tmp_path / "pipeline")
    parser = "syntactic_head.arc_scorer.attention._weight_matrix"
    difference = weights(tmp_path / "pipeline")[parser] - weights(tmp_path / "large")[parser]
    assert difference.abs().max() > 1e-4


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
class TestTwoWorkers:
    def test_they_learn_what_one_learns(self, tmp_path, monkeypatch):
        """
        With callbacks and all: the same weights to 1e-5 (float32 sums in another order), the same losses and metrics.
        Worker 0 reads sentences 0, 2, ... and worker 1 the others, so that their batches of two make one of four.
        """
        monkeypatch.chdir(PROJECT_ROOT)
        corpus = write_corpus(tmp_path / "corpus.conllu")
        trainer = {"callbacks": ["tensorboard", {"type": "latent_diagnostics", "num_batches": 2}]}
        params = configuration(corpus, ESTIMATORS[0], batch_size=4, trainer=trainer)
        train_model(Params(params), tmp_path / "one")
        expected = json.loads((tmp_path / "one" / "metrics_epoch_1.json").read_text())

        params = configuration(corpus, ESTIMATORS[0], batch_size=2, trainer=trainer)
        metrics = run_command(tmp_path, {**params, "distributed": {"cuda_devices": [-1, -1]}})
        assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "one"))
        names = [name for name in expected if name.startswith(("training_", "validation_")) and "memory" not in name]
        assert {"training_loss", "validation_loss", "training__estimator_gradient_cosine"} <= set(names)
        for name in names:
            if name != "training_duration":
                assert metrics[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name

    def test_one_without_gold_syntax_does_not_keep_the_other_waiting(self, tmp_path, monkeypatch):
        """
        As torch demands of any model where a worker may use fewer parameters than another: the relations' are not used
        without gold trees.
        """
        monkeypatch.chdir(PROJECT_ROOT)
        corpus = write_corpus(tmp_path / "corpus.conllu")
        trainer = {"callbacks": [{"type": "latent_diagnostics", "num_batches": 2}]}
        params = configuration(corpus, ESTIMATORS[0], batch_size=2, trainer=trainer)
        params["dataset_reader"]["type"] = "every_other_tree"
        accelerator = {"type": "torch", "find_unused_parameters": True}
        params["distributed"] = {"cuda_devices": [-1, -1], "ddp_accelerator": accelerator}
        metrics = run_command(tmp_path, params)
        assert metrics["epoch"] == 1
        # Counted over both workers, of which only one has trees.
        assert 0 < metrics["training_uas"] <= 1
