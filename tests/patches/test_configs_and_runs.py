"""Misspelt keys are refused with the valid ones; a serialization directory is that of one run at a time."""

import copy
import errno
import fcntl
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator
from unittest import mock

import pytest
import torch
from allennlp.commands.train import TrainModel, train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.config_keys import check_config_keys
from spigot_allennlp.files import save_atomically, written_atomically
from spigot_allennlp.training.distributed_trainer import _end_with_parent
from tests.conftest import PROJECT_ROOT
from tests.training.small import configuration, write_corpus


@pytest.fixture
def config(tmp_path: Path) -> Dict[str, Any]:
    return configuration(write_corpus(tmp_path / "corpus.conllu"), trainer={"num_epochs": 1})


MISSPELT = [
    ("valid_data_path", "x", "validation_data_path"),
    ("trainer.num_epoch", 1, "num_epochs"),
    ("trainer.optimizer.learning_rate", 0.1, "lr"),
    ("trainer.checkpointer", {"keep_most_recent": 1}, "keep_most_recent_by_count"),
    ("trainer.callbacks", [{"type": "latent_diagnostics", "num_batch": 1}], "num_batches"),
    ("data_loader.batchsize", 4, "batch_size"),
    ("data_loader.batch_sampler", {"type": "bucket", "batch_size": 4, "sorting_key": ["tokens"]}, "sorting_keys"),
    ("dataset_reader.graph", False, "graphs"),
    ("model.estimator", {"type": "spigot", "stepsize": 1}, "step_size"),
    ("model.dropouts", 0.5, "dropout"),
]


@pytest.mark.parametrize(("place", "value", "valid"), MISSPELT)
class TestMisspeltKeys:
    def changed(self, config: Dict[str, Any], place: str, value: Any) -> Dict[str, Any]:
        part = config
        *path, last = place.split(".")
        for name in path:
            part = part[name]
        part[last] = value
        return config

    def test_without_building_anything(self, place: str, value: Any, valid: str, config: Dict[str, Any]):
        with pytest.raises(ConfigurationError, match=rf"has no key '.*'; valid: (.*, )?{valid}\b"):
            check_config_keys(self.changed(config, place, value))

    def test_in_training(self, place: str, value: Any, valid: str, config: Dict[str, Any], tmp_path: Path):
        config = self.changed(config, place, value)
        for name in ("random_seed", "numpy_seed", "pytorch_seed"):
            config.pop(name)
        with pytest.raises(ConfigurationError, match=rf"has no key '.*'; valid: (.*, )?{valid}\b"):
            TrainModel.from_params(Params(config), serialization_dir=str(tmp_path), local_rank=0)


CONFIGS = sorted((PROJECT_ROOT / "training_configs").rglob("*.jsonnet"))[::5]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_have_no_such_keys(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PROJECT_ROOT)
    check_config_keys(Params.from_file(str(path)).as_dict(quiet=True))


def test_a_key_of_distributed(config: Dict[str, Any], tmp_path: Path):
    config["distributed"] = {"cuda_device": [-1, -1]}
    with pytest.raises(ConfigurationError, match="'distributed' has no key 'cuda_device'; valid: cuda_devices, "):
        train_model(Params(config), str(tmp_path / "run"))


class TestOneRunInADirectory:
    @pytest.fixture
    def another_run(self, tmp_path: Path) -> Iterator[None]:
        (tmp_path / "run").mkdir()
        descriptor = os.open(tmp_path / "run", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.close(descriptor)

    @pytest.mark.parametrize("options", [{}, {"force": True}, {"recover": True}])
    def test_the_second_says_so(
        self, options: Dict[str, Any], config: Dict[str, Any], tmp_path: Path, another_run: None
    ):
        (tmp_path / "run" / "best.th").touch()
        with pytest.raises(ConfigurationError, match=f"{tmp_path / 'run'}: another run is being trained"):
            train_model(Params(config), str(tmp_path / "run"), **options)
        assert (tmp_path / "run" / "best.th").exists()

    def test_the_next_may(self, config: Dict[str, Any], tmp_path: Path):
        for _ in range(2):
            train_model(Params(copy.deepcopy(config)), str(tmp_path / "run"), force=True)


def test_workers_end_with_their_parent(tmp_path: Path):
    """Killed by a signal that it cannot handle; an interrupt, which torch asks for, is ignored in the background."""

    def work() -> None:  # pragma: no cover
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_with_parent()
        (tmp_path / "worker").write_text(str(os.getpid()))
        time.sleep(60)

    parent = os.fork()
    if not parent:  # pragma: no cover
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start()
        worker.join()
        os._exit(0)
    deadline = time.monotonic() + 60
    while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker = int((tmp_path / "worker").read_text())
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while Path(f"/proc/{worker}").exists() and "zombie" not in Path(f"/proc/{worker}/status").read_text():
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.01)


class TestAFullDisk:
    def test_the_error_names_file_and_size(self, tmp_path: Path):
        path = tmp_path / "model_state_e0_b0.th"
        path.write_text("old")
        with pytest.raises(OSError, match="the disk is full: 3 bytes of this file") as error:
            with written_atomically(path) as part:
                Path(part).write_text("new")
                raise OSError(errno.ENOSPC, "No space left on device")
        assert error.value.filename == str(path)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        assert path.read_text() == "old"

    def test_of_torch(self, tmp_path: Path):
        """Whose writer does not say what is wrong."""
        usage = mock.Mock(free=0)
        with mock.patch("shutil.disk_usage", return_value=usage), mock.patch.object(torch, "save") as save:
            save.side_effect = RuntimeError("unexpected pos 64 vs 0")
            with pytest.raises(OSError, match="the disk is full: 0 bytes"):
                save_atomically({}, tmp_path / "x")

    def test_other_errors_stay(self, tmp_path: Path):
        with pytest.raises(RuntimeError, match="something else"), written_atomically(tmp_path / "x") as part:
            Path(part).touch()
            raise RuntimeError("something else")
        assert not list(tmp_path.iterdir())


def test_plugins_are_not_announced():
    assert not logging.getLogger("allennlp.common.plugins").isEnabledFor(logging.INFO)
