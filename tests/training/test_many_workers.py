"""
`distributed` in a configuration: two workers learn and measure what one does, whatever their shares of the data; one
that dies takes the run with it. The workers are copies of this process; test_trainer.py has some that are not.
"""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from allennlp.common.util import find_open_port
from allennlp.data import DatasetReader, Instance
from allennlp.training import TrainerCallback

from spigot_allennlp.data import ConlluGraphsDatasetReader
from tests.running import Forked
from tests.training.small import configuration, write_corpus

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")

PACKAGES = ["--include-package", "spigot_allennlp"]
TWO_WORKERS = {"cuda_devices": [-1, -1]}
NUM_EPOCHS = 3


@DatasetReader.register("every_other_annotation")
class EveryOtherAnnotation(ConlluGraphsDatasetReader):
    """Sentences in odd places have no tree, and a graph without arcs: of two workers, the second one has only those."""

    def text_to_instance(self, words: Any) -> Instance:
        if int(words.sentence_id) % 2:
            words = replace(words, heads=None, deprels=None, arcs={}, tops=frozenset())
        return super().text_to_instance(words)


@TrainerCallback.register("misfortune")
class Misfortune(TrainerCallback):
    """Happens to the second worker, in the second epoch: an exception, or a signal."""

    def __init__(self, serialization_dir: str, kind: Optional[int] = None) -> None:
        super().__init__(serialization_dir)
        self.kind = kind

    def on_epoch(self, trainer: Any, metrics: dict[str, Any], epoch: int, **kwargs: Any) -> None:
        if torch.distributed.get_rank() == 1 and epoch == 1:
            if self.kind is None:
                raise ValueError("the second worker is out of luck")
            os.kill(os.getpid(), self.kind)


@TrainerCallback.register("write_noise")
class WriteNoise(TrainerCallback):
    def on_start(self, trainer: Any, **kwargs: Any) -> None:
        path = Path(self.serialization_dir) / f"noise{torch.distributed.get_rank()}.json"
        path.write_text(json.dumps(torch.rand(3).tolist()))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[int, Path]:
    """Of seven and of eight sentences."""
    directory = tmp_path_factory.mktemp("corpora")
    eight, seven = write_corpus(directory / "eight.conllu"), directory / "seven.conllu"
    seven.write_text("".join(block + "\n\n" for block in eight.read_text().split("\n\n")[:7]))
    return {7: seven, 8: eight}


def parser(corpora: dict[int, Path], estimator: Any, batch_size: int, sentences: int = 8, **trainer: Any) -> Any:
    trainer = {"num_epochs": NUM_EPOCHS, "optimizer": {"type": "sgd", "lr": 0.01}, **trainer}
    params = configuration(corpora[sentences], estimator, batch_size=batch_size, trainer=trainer)
    # One by one, two workers have four batches and three.
    return {**params, "validation_data_path": str(corpora[7]), "validation_data_loader": {"batch_size": 1}}


def classifier(tmp_path: Path, estimator: Any, batch_size: int) -> dict[str, Any]:
    data = tmp_path / "data.txt"
    sentences = ["1\tgood fun", "0\tnot good", "1\tnot bad", "0\tawful", "1\tlovely music", "0\tno fun", "1\tfun"]
    data.write_text("\n".join([*sentences, "0\tnot fun at all"]))
    validation = tmp_path / "validation.txt"
    validation.write_text("\n".join(sentences))
    params = configuration(data, estimator, batch_size=batch_size)
    params["dataset_reader"] = {"type": "sst_trees", "granularity": 2}
    params["model"]["type"] = "latent_tree_classifier"
    del params["model"]["graph_head"]
    return {**params, "validation_data_path": str(validation), "validation_data_loader": {"batch_size": 1}}


def two_nodes() -> dict[str, Any]:
    port = find_open_port()
    return {"cuda_devices": [-1], "num_nodes": 2, "primary_address": "127.0.0.1", "primary_port": port}


def start(directory: Path, params: dict[str, Any], *arguments: Any) -> Forked:
    directory.mkdir(exist_ok=True)
    config = directory / "config.json"
    config.write_text(json.dumps(params))
    return Forked(directory, "train", config, "-s", directory / "run", *PACKAGES, *arguments)


def train(directory: Path, params: dict[str, Any], *arguments: Any) -> list[dict[str, float]]:
    done = start(directory, params, *arguments).finish()
    assert done.returncode == 0, done.output
    return epochs(directory)


def epochs(directory: Path) -> list[dict[str, float]]:
    """The metrics of every epoch."""
    found = []
    for path in sorted((directory / "run").glob("metrics_epoch_*.json")):
        metrics = json.loads(path.read_text())
        found.append({n: v for n, v in metrics.items() if "memory" not in n and "duration" not in n})
    return found


def assert_same(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    """
    Counts exactly; sums of floating-point numbers, in another order, but for 1e-4 of them.
    """
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected):
        assert mine.keys() == theirs.keys()
        for name in theirs:
            continuous = re.search("loss|distance", name)
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4 if continuous else 1e-12, abs=1e-5), name
    # Which is no statement about numbers that do not change.
    for name in ("training_loss", "validation_loss"):
        assert abs(expected[0][name] - expected[-1][name]) > 0.001


class TestTheLossCurveOfOne:
    """A batch of each of two workers is one of twice the size; `W` workers take every `W`-th sentence each."""

    def test_on_two_nodes(self, corpora, tmp_path):
        estimator = {"type": "spigot", "step_size": 5.0}
        expected = train(tmp_path / "one", parser(corpora, estimator, 4))
        assert expected[-1]["validation_uas"] > 0
        params = {**parser(corpora, estimator, 2), "distributed": two_nodes()}
        second = start(tmp_path / "second", params, "--node-rank", 1)
        assert_same(train(tmp_path / "first", params, "--node-rank", 0), expected)
        done = second.finish()
        assert done.returncode == 0, done.output
        # Each node has all of it: they need not share a directory.
        assert_same(epochs(tmp_path / "second"), expected)
        assert (tmp_path / "second" / "run" / "model.tar.gz").exists()

    def test_pipeline(self, corpora, tmp_path):
        expected = train(tmp_path / "one", parser(corpora, "pipeline", 4))
        assert_same(train(tmp_path / "two", {**parser(corpora, "pipeline", 2), "distributed": TWO_WORKERS}), expected)

    def test_classifier(self, tmp_path):
        params = classifier(tmp_path, {"type": "spigot", "step_size": 2.0}, 4)
        optimizer = {"type": "sgd", "lr": 1.0}
        params["trainer"].update(num_epochs=5, optimizer=optimizer)
        expected = train(tmp_path / "one", params)
        params["data_loader"]["batch_size"] = 2
        assert_same(train(tmp_path / "two", {**params, "distributed": TWO_WORKERS}), expected)


class TestShares:
    def test_uneven_and_poor_ones_with_noise_and_a_recovery(self, corpora, tmp_path):
        """
        The first worker has four batches, the second three, without trees and arcs; two make one step. The run is
        killed, and recovered.
        """
        checkpointer = {"save_every_num_batches": 1}
        trainer = {"num_gradient_accumulation_steps": 2, "callbacks": ["write_noise"], "checkpointer": checkpointer}
        params = parser(corpora, "perturb_and_map", 1, sentences=7, **trainer)
        params["dataset_reader"]["type"] = "every_other_annotation"
        params["model"]["dropout"] = 0.2
        params["distributed"] = TWO_WORKERS
        expected = train(tmp_path / "whole", params)
        assert len(expected) == NUM_EPOCHS
        # Counted over both workers, of which only one has trees and arcs.
        assert 0 < expected[-1]["validation_uas"] <= 1
        noise = [(tmp_path / "whole" / "run" / f"noise{rank}.json").read_text() for rank in (0, 1)]
        assert noise[0] != noise[1]

        killed = start(tmp_path / "killed", params)
        directory = tmp_path / "killed" / "run"
        killed.wait_until(lambda: any(directory.glob("model_state_e1_*.th")))
        os.killpg(killed.pid, signal.SIGKILL)
        assert killed.finish().returncode == -signal.SIGKILL
        assert train(tmp_path / "killed", params, "--recover") == expected

    def test_none_at_all(self, corpora, tmp_path):
        """One sentence to validate on, and two workers."""
        params = parser(corpora, "spigot", 4, num_epochs=1)
        one = tmp_path / "one.conllu"
        one.write_text(corpora[8].read_text().split("\n\n")[2] + "\n\n")
        params["validation_data_path"] = str(one)
        (expected,) = train(tmp_path / "expected", params)
        params["data_loader"]["batch_size"] = 2
        (found,) = train(tmp_path / "two", {**params, "distributed": TWO_WORKERS})
        names = [name for name in expected if name.startswith("validation")]
        assert [found[n] for n in names] == pytest.approx([expected[n] for n in names], rel=1e-4)


class TestAWorkerThatDies:
    @pytest.mark.parametrize(
        "kind, reason",
        [
            (None, "ValueError: the second worker is out of luck"),
            (signal.SIGKILL, "process 1 terminated with signal SIGKILL"),
        ],
        ids=["exception", "signal"],
    )
    def test_ends_the_run_with_its_reason(self, corpora, tmp_path, kind, reason):
        callback = {"type": "misfortune", **({} if kind is None else {"kind": int(kind)})}
        params = parser(corpora, "spigot", 2, callbacks=[callback], num_epochs=1000)
        done = start(tmp_path / "run", {**params, "distributed": TWO_WORKERS}).finish()
        assert done.returncode == 1
        assert reason in "\n".join(done.output.splitlines()[-5:])

    def test_on_another_node(self, corpora, tmp_path):
        params = {**parser(corpora, "spigot", 2, num_epochs=1000), "distributed": two_nodes()}
        second = start(tmp_path / "second", params, "--node-rank", 1)
        first = start(tmp_path / "first", params, "--node-rank", 0)
        first.wait_until(lambda: bool(epochs(tmp_path / "first")))
        os.killpg(second.pid, signal.SIGKILL)
        assert second.finish().returncode == -signal.SIGKILL
        done = first.finish()
        assert done.returncode == 1
        assert re.search("Connection (closed|reset) by peer", done.output)
