"""A run that is killed, wherever that happens, and recovered ends as one that is not: with the same bits."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable
from unittest import mock

import pytest
import torch
import tqdm
from allennlp.commands import train as train_command
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common import util as common_util
from allennlp.training import gradient_descent_trainer

from tests.training.small import configuration, write_corpus

RUNS: dict[str, dict[str, Any]] = {
    "noise, and checkpoints in the middle of epochs": {
        "estimator": "perturb_and_map",
        "trainer": {
            "checkpointer": {"save_every_num_batches": 2},
            "learning_rate_scheduler": {"type": "cosine", "t_initial": 3},
        },
    },
    "samples and a running baseline": {
        "estimator": {"type": "score_function", "baseline": "moving_average"},
        "trainer": {
            "learning_rate_scheduler": {"type": "slanted_triangular"},
            "checkpointer": {"save_every_num_batches": 1},
        },
    },
    "noise at some distance": {
        "estimator": {"type": "imle"},
        "trainer": {
            "learning_rate_scheduler": {"type": "reduce_on_plateau", "patience": 1},
            "callbacks": [{"type": "latent_diagnostics", "num_batches": 2}],
            "checkpointer": {"save_every_num_batches": 3},
        },
    },
    "no noise, and patience": {"estimator": "spigot", "trainer": {"num_epochs": 8, "patience": 1}},
    "averaged weights": {
        "estimator": "spigot",
        "trainer": {"moving_average": {"type": "exponential", "decay": 0.5}, "num_gradient_accumulation_steps": 2},
        "syntactic_loss_weight": {"type": "linear", "start": 1.0, "end": 0.0, "num_steps": 9},
    },
}


def params(corpus: Path, run: str) -> Params:
    options = dict(RUNS[run])
    trainer = {"num_epochs": 4, "optimizer": {"type": "adam", "lr": 0.02}, **options.pop("trainer")}
    config = configuration(corpus, dropout=0.3, trainer=trainer, **options)
    config["data_loader"] = {"batch_sampler": {"type": "bucket", "batch_size": 3, "sorting_keys": ["tokens"]}}
    # Whole epochs are read in part, and the next one goes on from there.
    if run.startswith("samples"):
        config["data_loader"] = {"batch_size": 2, "shuffle": True, "batches_per_epoch": 3}
        config["validation_data_loader"] = {"batch_size": 4}
    return Params(config)


def result(directory: Path) -> dict[str, Any]:
    """All that a run leaves behind, without times and memory."""
    found: dict[str, Any] = {"weights": torch.load(directory / "best.th")}
    last = max(directory.glob("model_state_*.th"), key=lambda path: [int(n[1:]) for n in path.stem.split("_")[2:]])
    found[last.name] = torch.load(last)
    for path in directory.glob("metrics*.json"):
        metrics = json.loads(path.read_text())
        found[path.name] = {n: v for n, v in metrics.items() if "duration" not in n and "memory" not in n}
    assert (directory / "model.tar.gz").exists() and "metrics.json" in found
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for key in {*values, *found[name]}:
            first, second = torch.as_tensor(found[name][key]), torch.as_tensor(values[key])
            # NaN is a value like others: that of diagnostics that had nothing to look at.
            assert torch.allclose(first, second, rtol=0, atol=0, equal_nan=True), (name, key, first, second)


def train(corpus: Path, run: str, directory: Path) -> None:
    # There is nothing to recover where a run was killed before it began.
    recover = (directory / "config.json").exists()
    train_model(params(corpus, run), str(directory), recover=recover)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory) -> Callable[[str], tuple[dict[str, Any], float]]:
    """What a run leaves when nothing happens to it, and the seconds that it takes."""
    known: dict[str, tuple[dict[str, Any], float]] = {}

    def of(run: str) -> tuple[dict[str, Any], float]:
        if run not in known:
            directory = tmp_path_factory.mktemp("uninterrupted") / "run"
            train(corpus, run, directory)
            # Once more, now that everything is loaded.
            again = tmp_path_factory.mktemp("again") / "run"
            start = time.monotonic()
            train(corpus, run, again)
            known[run] = result(directory), time.monotonic() - start
            assert_same(result(again), known[run][0])
        return known[run]

    return of


def killed(corpus: Path, run: str, directory: Path, after: float) -> bool:
    """Trains in another process, to the end, or until it is killed; whether that happened."""
    child = os.fork()
    if not child:  # pragma: no cover
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            # Its own is one for all processes, and would stay locked.
            tqdm.tqdm.set_lock(threading.RLock())
            train(corpus, run, directory)
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            break
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "the run failed by itself"
    return status == signal.SIGKILL


def kill_at_random(corpus: Path, run: str, directory: Path, seconds: float, times: int, seed: int) -> dict[str, Any]:
    generator = random.Random(seed)
    kills, attempt = 0, 0
    while kills < times:
        if killed(corpus, run, directory / str(attempt), generator.uniform(0.0, seconds)):
            kills += 1
        else:
            # It came to its end before that.
            attempt += 1
    train(corpus, run, directory / str(attempt))
    return result(directory / str(attempt))


@pytest.mark.parametrize("run", [next(iter(RUNS))])
def test_three_kills(run: str, corpus: Path, tmp_path: Path, uninterrupted: Callable):
    expected, seconds = uninterrupted(run)
    assert_same(kill_at_random(corpus, run, tmp_path, seconds, times=3, seed=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_many_kills(run: str, corpus: Path, tmp_path: Path, uninterrupted: Callable):
    expected, seconds = uninterrupted(run)
    for seed in range(3):
        assert_same(kill_at_random(corpus, run, tmp_path / str(seed), seconds, times=7, seed=seed), expected)


class Killed(BaseException):
    """Not caught by anyone, but by who takes any error for a reason to tidy up."""


@contextmanager
def killed_before(step: int) -> Iterator[list[str]]:
    """
    Ends a run before the `step`-th time (from 0) that it does something to its files. The names of what it did.
    """
    done: list[str] = []

    def watched(name: str, original: Callable) -> Callable:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if len(done) == step:
                raise Killed
            done.append(name)
            return original(*args, **kwargs)

        return wrapper

    with ExitStack() as stack:
        for owner, name in (
            (os, "replace"),
            (os, "remove"),
            (os, "fsync"),
            (common_util, "dump_metrics"),
            (gradient_descent_trainer, "hardlink_or_copy"),
            (train_command, "archive_model"),
        ):
            stack.enter_context(mock.patch.object(owner, name, watched(name, getattr(owner, name))))
        yield done


def killed_at_every(steps: slice, corpus: Path, run: str, tmp_path: Path, expected: dict[str, Any]) -> None:
    with killed_before(-1) as done:
        train(corpus, run, tmp_path / "whole")
    assert {"replace", "fsync", "dump_metrics", "archive_model"} <= set(done)
    for step in range(len(done))[steps]:
        directory = tmp_path / str(step)
        with killed_before(step), pytest.raises(Killed):
            train(corpus, run, directory)
        train(corpus, run, directory)
        assert_same(result(directory), expected)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_killed_at_every_change_of_a_file(run: str, corpus: Path, tmp_path: Path, uninterrupted: Callable):
    killed_at_every(slice(None), corpus, run, tmp_path, uninterrupted(run)[0])


@pytest.mark.parametrize("run", ["no noise, and patience", "averaged weights"])
def test_killed_at_the_end(run: str, corpus: Path, tmp_path: Path, uninterrupted: Callable):
    """When the last epoch's checkpoint has been written, but not the best weights, or the final metrics."""
    killed_at_every(slice(-6, None), corpus, run, tmp_path, uninterrupted(run)[0])
