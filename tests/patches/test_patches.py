"""
Every test here goes through AllenNLP's own code, and fails where `spigot_allennlp.patches` are not applied.
"""

import inspect
import io
import json
import os
import pickle
import types
import warnings
from pathlib import Path
from typing import Any, Dict
from unittest import mock

import numpy as np
import pytest
import torch
from allennlp.commands import predict
from allennlp.commands.train import train_model
from allennlp.common import Params, Registrable
from allennlp.common import util as common_util
from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import TensorCache
from allennlp.data import Vocabulary
from allennlp.data.data_loaders import MultiProcessDataLoader
from allennlp.data.dataset_readers import TextClassificationJsonReader
from allennlp.data.tokenizers import WhitespaceTokenizer
from allennlp.nn.parallel import ddp_accelerator
from allennlp.training import gradient_descent_trainer
from allennlp.training import util as training_util
from allennlp.training.checkpointer import Checkpointer
from allennlp.training.learning_rate_schedulers import ReduceOnPlateauLearningRateScheduler
from allennlp.training.moving_average import ExponentialMovingAverage
from allennlp.training.trainer import TrainerCheckpoint

from spigot_allennlp import patches

CLIPPERS = [module.clip_grad_norm_ for module in (gradient_descent_trainer, training_util, ddp_accelerator)]


@pytest.fixture
def data_path(tmp_path: Path) -> str:
    path = tmp_path / "data.jsonl"
    lines = [{"text": f"{'good' if i % 2 else 'bad'} word{i % 5} end", "label": str(i % 2)} for i in range(24)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def config(data_path: str, embedding: Dict[str, Any], trainer: Dict[str, Any]) -> Params:
    """AllenNLP's own text classifier, which uses nothing of this package."""
    return Params(
        {
            "dataset_reader": {"type": "text_classification_json", "tokenizer": "whitespace"},
            "train_data_path": data_path,
            "validation_data_path": data_path,
            "model": {
                "type": "basic_classifier",
                "text_field_embedder": {
                    "token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 4, **embedding}}
                },
                "seq2vec_encoder": {"type": "bag_of_embeddings", "embedding_dim": 4},
            },
            "data_loader": {"batch_size": 8},
            "trainer": {"optimizer": "adam", "num_epochs": 2, "cuda_device": -1, **trainer},
        }
    )


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "cosine", "t_initial": 4},  # computes learning rates with NumPy
        {"type": "reduce_on_plateau", "patience": 1, "verbose": True},
        {"type": "slanted_triangular"},
    ],
    ids=lambda scheduler: scheduler["type"],
)
def test_recover_with_a_learning_rate_scheduler(scheduler: Dict[str, Any], data_path: str, tmp_path: Path):
    def train(recover: bool) -> Dict[str, torch.Tensor]:
        params = config(data_path, {}, {"learning_rate_scheduler": dict(scheduler)})
        return train_model(params, str(tmp_path / "run"), recover=recover).state_dict()

    weights = train(recover=False)
    (tmp_path / "run" / "model.tar.gz").unlink()
    recovered = train(recover=True)
    assert all(torch.equal(weights[name], recovered[name]) for name in weights)


@pytest.mark.parametrize(
    "number", [np.float64(0.5), np.float32(0.5), np.int64(3), np.int32(3), np.bool_(True)], ids=repr
)
def test_a_checkpoint_may_hold_numpy_numbers(number: np.generic, tmp_path: Path):
    torch.save({"metric": number}, tmp_path / "state.th")
    loaded = torch.load(tmp_path / "state.th")["metric"]
    assert loaded == number and type(loaded) is type(number)


def test_a_checkpoint_still_cannot_run_code(tmp_path: Path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was here",))

    torch.save({"metric": Malicious()}, tmp_path / "state.th")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "state.th")
    assert not (tmp_path / "was here").exists()


def test_reduce_on_plateau_keeps_its_arguments():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceOnPlateauLearningRateScheduler(optimizer, "max", factor=0.5, patience=0, verbose=True)
    for metric in (0.9, 0.8, 0.95):
        scheduler.step(metric)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_sparse_embeddings_with_clipping(data_path: str, tmp_path: Path):
    trainer = {"optimizer": {"type": "dense_sparse_adam", "lr": 0.05}, "num_epochs": 20, "grad_norm": 0.1}
    train_model(config(data_path, {"sparse": True}, trainer), str(tmp_path / "run"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["training_accuracy"] == 1.0


@pytest.mark.parametrize("clip_grad_norm_", CLIPPERS)
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_sparse_gradients_is_clipping_dense_ones(clip_grad_norm_, max_norm: float):
    torch.manual_seed(0)
    ids = torch.tensor([1, 3, 3, 0])  # a row that occurs twice: its gradient is not yet coalesced
    weights, factor = torch.randn(5, 3), torch.randn(4, 3)

    def clipped(sparse: bool):
        embedding = torch.nn.Parameter(weights.clone())
        other = torch.nn.Parameter(torch.ones(3))
        ((torch.nn.functional.embedding(ids, embedding, sparse=sparse) * factor) @ other).sum().backward()
        norm = clip_grad_norm_([embedding, other], max_norm)
        return norm, embedding.grad.to_dense() if sparse else embedding.grad, other.grad

    for expected, actual in zip(clipped(sparse=False), clipped(sparse=True)):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("clip_grad_norm_", CLIPPERS)
def test_clipping_takes_a_single_tensor_and_parameters_without_gradient(clip_grad_norm_):
    parameter = torch.nn.Parameter(torch.zeros(2))
    assert clip_grad_norm_([parameter], 1.0) == 0
    parameter.grad = torch.tensor([3.0, 4.0])
    assert clip_grad_norm_(parameter, 1.0) == 5
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


def test_tensor_cache(tmp_path: Path):
    whole = torch.arange(1000.0)
    view = whole[2:4]
    cache = TensorCache(tmp_path / "cache")
    cache["view"] = view
    # Read what was written, not what the cache still has in memory.
    cache.cache_cache.clear()
    loaded = cache["view"]
    assert torch.equal(loaded, view)
    buffer = io.BytesIO()
    torch.save(loaded, buffer)
    assert buffer.tell() < whole.numel() * whole.element_size(), "the view was saved with all of its storage"


@pytest.mark.parametrize("max_instances_in_memory", [None, 8], ids=["instance workers", "batch workers"])
def test_data_loading_in_spawned_workers(data_path: str, max_instances_in_memory):
    reader = TextClassificationJsonReader(tokenizer=WhitespaceTokenizer())
    loader = MultiProcessDataLoader(
        reader,
        data_path,
        batch_size=8,
        num_workers=1,
        start_method="spawn",
        max_instances_in_memory=max_instances_in_memory,
        quiet=True,
    )
    loader.index_with(Vocabulary.from_instances(reader.read(data_path)))
    assert sum(len(batch["label"]) for batch in loader) == 24


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path, monkeypatch):
    def state(batches: int) -> Any:
        when = {"epochs_completed": 0, "batches_in_epoch_completed": batches}
        checkpoint = TrainerCheckpoint({"weight": torch.full((3,), float(batches))}, when)
        return types.SimpleNamespace(get_checkpoint_state=lambda: checkpoint)

    class Killed(BaseException):
        pass

    checkpointer = Checkpointer(tmp_path)
    checkpointer.save_checkpoint(state(1))
    for name in ("fsync", "replace"):
        for calls in (1, 2):
            with monkeypatch.context() as context:
                effects = [mock.DEFAULT] * (calls - 1) + [Killed]
                context.setattr(os, name, mock.Mock(wraps=getattr(os, name), side_effect=effects))
                with pytest.raises(Killed):
                    checkpointer.save_checkpoint(state(2))
            loaded = checkpointer.load_checkpoint()
            assert loaded.trainer_state["batches_in_epoch_completed"] == 1 and loaded.model_state["weight"][0] == 1
    checkpointer.save_checkpoint(state(2))
    assert checkpointer.load_checkpoint().model_state["weight"][0] == 2
    assert not list(tmp_path.glob("*.part"))


def test_a_kill_while_the_config_is_written_leaves_none(tmp_path: Path):
    with mock.patch("json.dump", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        Params({"a": 1}).to_file(str(tmp_path / "config.json"))
    assert not (tmp_path / "config.json").exists()
    Params({"a": 1}).to_file(str(tmp_path / "config.json"))
    assert Params.from_file(tmp_path / "config.json").as_dict() == {"a": 1}


def test_a_kill_while_metrics_are_written_leaves_none(tmp_path: Path):
    path = tmp_path / "metrics_epoch_0.json"
    with mock.patch("json.dumps", return_value=mock.Mock()), pytest.raises(TypeError):
        common_util.dump_metrics(str(path), {"loss": 1.0})
    assert not path.exists()
    common_util.dump_metrics(str(path), {"loss": 1.0})
    assert json.loads(path.read_text()) == {"loss": 1.0} and list(tmp_path.iterdir()) == [path]
    common_util.dump_metrics(None, {"loss": 1.0}, log=True)


def test_a_recovered_moving_average_is_that_of_the_model():
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = ExponentialMovingAverage([("weight", parameter)], decay=0.5)
    parameter.data.fill_(4.0)
    average.apply()
    recovered = torch.nn.Parameter(parameter.data.clone())
    again = ExponentialMovingAverage([("weight", recovered)], decay=0.5)
    again.load_state_dict(average.state_dict())
    recovered.data.fill_(8.0)
    again.apply()
    again.assign_average_value()
    assert recovered.tolist() == [5.0, 5.0]
    again.restore()
    assert recovered.tolist() == [8.0, 8.0] and parameter.tolist() == [4.0, 4.0]


def test_input_that_is_no_utf8(tmp_path: Path):
    path = tmp_path / "input.txt"
    path.write_bytes("caf\u00e9".encode("latin-1"))
    # A predictor that leaves the reading to AllenNLP.
    manager = mock.Mock(_input_file=str(path), _predictor=object())
    with pytest.raises(ConfigurationError, match="input.txt: the input is not valid UTF-8"):
        list(predict._PredictManager._get_json_data(manager))


def test_only_the_known_warnings_of_others_are_silenced(data_path: str, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        patches.apply()
        train_model(config(data_path, {}, {}), str(tmp_path / "run"))
        message = "`torch.cuda.amp.autocast(args...)` is deprecated."
        with pytest.raises(FutureWarning):
            warnings.warn_explicit(message, FutureWarning, "mine.py", 1, module="mine")


def test_applying_twice_changes_nothing():
    before = (*CLIPPERS, ReduceOnPlateauLearningRateScheduler.__init__, TensorCache.__setitem__)
    filters = list(warnings.filters)
    patches.apply()
    patches.apply()
    after = [module.clip_grad_norm_ for module in (gradient_descent_trainer, training_util, ddp_accelerator)]
    assert before == (*after, ReduceOnPlateauLearningRateScheduler.__init__, TensorCache.__setitem__)
    assert len(warnings.filters) - len(filters) <= len(patches.THIRD_PARTY_WARNINGS)


def test_from_params_understands_our_constructors():
    """It passes raw dictionaries where an annotation is a string, or a union written with `|`."""
    ours = {
        found
        for registered in Registrable._registry.values()
        for found, _ in registered.values()
        if getattr(found, "__module__", "").startswith("spigot_allennlp.")
    }
    assert len(ours) > 20
    for found in ours:
        for parameter in inspect.signature(found.__init__).parameters.values():
            assert not isinstance(parameter.annotation, (str, types.UnionType)), (found, parameter)
