import json
import os
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import torch
from allennlp.common import Registrable
from allennlp.common.util import is_distributed
from allennlp.data import DataLoader, TensorDict
from allennlp.nn.util import dist_reduce_sum
from allennlp.training import GradientDescentTrainer, Trainer, TrainerCallback
from allennlp.training import util as training_util
from allennlp.training.metrics import Metric
from allennlp.training.trainer import TrainerCheckpoint

from spigot_allennlp.files import save_atomically
from spigot_allennlp.training.before_training import check_supervision, check_validation_metric
from spigot_allennlp.training.distributed_trainer import metrics_in
from spigot_allennlp.training.grouped_norms import takes_groups
from spigot_allennlp.training.nan_detecting_trainer import NanDetectingTrainer

# In the place of AllenNLP's, but without the notice of that in the output of every command, which `exist_ok` brings.
Registrable._registry[Trainer].pop("gradient_descent", None)


@Trainer.register("gradient_descent", constructor="from_partial_objects")
class ResumableTrainer(NanDetectingTrainer):
    """
    AllenNLP's `GradientDescentTrainer`, under its name and with its keys (several workers as in `DistributedTrainer`,
    norms by group as in `GroupedNormTrainer`, errors for NaN and infinities as in `NanDetectingTrainer`). A run that
    was killed and then recovered ends with the weights and the metrics of a run that was not. AllenNLP's own
    checkpoints leave out what that takes. Here they also hold, for every worker:

    - the states of the random generators (Python's, NumPy's, torch's on the CPU and on CUDA devices), from which come
      dropout, the noise of estimators and samples; and for each epoch those which its data were shuffled with;
    - in the middle of an epoch (`save_every_num_batches`), the losses and metrics of its batches so far;
    - the state of the gradient scaler, and whether the next epoch is to be validated.

    A run that was killed after its last epoch, or the last that patience allows, is not trained any further, and has
    that epoch's metrics; where the best epoch's weights were still to be written, they are.

    Two things are beyond it: data loaders whose worker processes race each other, and workers of a number other than
    before.
    """

    from_partial_objects = classmethod(takes_groups(NanDetectingTrainer.from_partial_objects.__func__))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "grad_norm" in kwargs and kwargs["grad_norm"] is None:
            # As for all other keys, `null` means the same as no key.
            kwargs["grad_norm"] = False
        super().__init__(*args, **kwargs)
        # The states of the generators that shuffle, at the beginning of each epoch.
        self._shuffles: List[Dict[str, Any]] = []
        # Summed over the batches of an epoch.
        self._losses: Dict[str, float] = {}
        self._workers: List[Dict[str, Any]] = []
        self._resumed: Optional[Dict[str, Any]] = None
        # Last, so that the states of the others stand where they stand in AllenNLP's checkpoints.
        self._callbacks.append(_Progress(self))

    def get_checkpoint_state(self) -> Optional[TrainerCheckpoint]:
        state = {
            "shuffles": self._shuffles,
            "generators": _generators(),
            "losses": self._losses,
            "metrics": {path: _data(metric) for path, metric in self._all_metrics()},
        }
        # Only the first worker writes, but all are asked.
        self._workers = [state]
        if is_distributed():
            self._workers = [{} for _ in range(self._world_size)]
            torch.distributed.all_gather_object(self._workers, state)
        return super().get_checkpoint_state()

    def _maybe_restore_checkpoint(self) -> None:
        super()._maybe_restore_checkpoint()
        if self._resumed is None or (self._ddp_wrapped_model is not None and self._ddp_wrapped_model.is_sharded):
            return
        # A checkpoint is written before the weights of the best epoch are, and does not know of them.
        best = os.path.join(self._serialization_dir, "best.th")
        at_the_end_of_an_epoch = self._start_after_batches_in_epoch_completed == 0
        is_best = at_the_end_of_an_epoch and self._resumed["validates"] and self._metric_tracker.is_best_so_far()
        if is_best and self._primary:
            self._finalize_model()
            try:
                self._save_model_state(best)
            finally:
                if self._moving_average is not None:
                    self._moving_average.restore()
        if is_best or os.path.exists(best):
            self._best_model_filename = best

    def _save_model_state(self, path: str) -> None:
        model = self.model if self._ddp_wrapped_model is None else self._ddp_wrapped_model
        save_atomically(model.state_dict(), path)

    def _try_train(self) -> Tuple[Dict[str, Any], int]:
        if self._resumed is None:
            state = _generators()
            check_validation_metric(self.model, self._metric_tracker, self._validation_data_loader)
            check_supervision(self.model, self.data_loader, self._validation_data_loader, self._metric_tracker)
            _set_generators(state)
            return super()._try_train()
        # Behind the callbacks' `on_start`, which may set some of it to what it is at the beginning of a run.
        self._should_validate_this_epoch = self._resumed["validates"]
        if self._scaler is not None and self._resumed["scaler"] is not None:
            self._scaler.load_state_dict(self._resumed["scaler"])
        state = self._resumed["state"]
        for path, metric in self._all_metrics():
            _set_data(metric, state["metrics"].get(path, {}))
        self._shuffles = list(state["shuffles"])

        epochs = self._start_after_epochs_completed
        at_the_end_of_an_epoch = self._start_after_batches_in_epoch_completed == 0
        ended = epochs >= self._num_epochs or self._metric_tracker.should_stop_early()
        if not (epochs and at_the_end_of_an_epoch and ended):
            return super()._try_train()
        self._num_epochs = epochs
        metrics, epoch = super()._try_train()
        path = os.path.join(self._serialization_dir, f"metrics_epoch_{epochs - 1}.json")
        if os.path.exists(path):
            with open(path) as file:
                metrics.update(json.load(file))
        return metrics, epoch

    def _train_epoch(self, epoch: int) -> Dict[str, float]:
        loader = self.data_loader
        self._losses = {}
        resumed = self._resumed if epoch == self._start_after_epochs_completed else None
        skipped = self._start_after_batches_in_epoch_completed if resumed else 0
        if epoch < len(self._shuffles):
            # An epoch that is only read again, as loaders may go on in one where they stopped in the one before.
            _set_generators(self._shuffles[epoch])
        if skipped:
            self._losses = dict(resumed["state"]["losses"])
            number = skipped * self._num_gradient_accumulation_steps
            self.data_loader = _Resumed(loader, number, lambda: _set_generators(resumed["state"]["generators"]))
        elif resumed:
            _set_generators(resumed["state"]["generators"])
        if epoch == len(self._shuffles):
            self._shuffles.append(_generators(torchs=False))
        try:
            metrics = super()._train_epoch(epoch)
        finally:
            self.data_loader = loader
        if skipped:
            num_batches = dist_reduce_sum(self._batches_in_epoch_completed)
            losses = {name: dist_reduce_sum(loss) for name, loss in self._losses.items()}
            if "loss" not in metrics:
                # All batches had been trained on.
                arguments = (losses["loss"], losses.get("reg_loss"), None, None, num_batches)
                metrics.update(training_util.get_metrics(self.model, *arguments, reset=True))
            metrics.update({name: loss / num_batches for name, loss in losses.items()})
        return metrics

    def _all_metrics(self) -> Iterator[Tuple[str, Metric]]:
        """All metrics of the model and of the callbacks, each with a name of its own."""
        for name, module in self._pytorch_model.named_modules():
            yield from metrics_in(f"model.{name}", vars(module))
        for index, callback in enumerate(self._callbacks[:-1]):
            yield from metrics_in(f"callbacks.{index}", vars(callback))

    def _add_losses(self, batch_metrics: Dict[str, Any], num_batches: int) -> None:
        for name in ("loss", "reg_loss"):
            if f"batch_{name}" in batch_metrics:
                self._losses[name] = self._losses.get(name, 0.0) + batch_metrics[f"batch_{name}"]
                batch_metrics[name] = self._losses[name] / num_batches


class _Progress(TrainerCallback):
    """How the trainer's additions get into a checkpoint and out of it, and what they learn about batches."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        super().__init__(trainer._serialization_dir)
        self._trainer = trainer

    def on_batch(
        self,
        trainer: GradientDescentTrainer,
        batch_inputs: List[TensorDict],
        batch_outputs: List[Dict[str, Any]],
        batch_metrics: Dict[str, Any],
        epoch: int,
        batch_number: int,
        is_training: bool,
        is_primary: bool = True,
        batch_grad_norm: Optional[float] = None,
        **kwargs,
    ) -> None:
        if is_training:
            trainer._add_losses(batch_metrics, batch_number)

    def state_dict(self) -> Dict[str, Any]:
        return {
            "workers": self._trainer._workers,
            "validates": self._trainer._should_validate_this_epoch,
            "scaler": None if self._trainer._scaler is None else self._trainer._scaler.state_dict(),
        }

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        trainer = self._trainer
        # A run that another trainer began has less to restore.
        if len(state_dict.get("workers", ())) == trainer._world_size:
            rank = torch.distributed.get_rank() if is_distributed() else 0
            trainer._resumed = {**state_dict, "state": state_dict["workers"][rank]}


class _Resumed:
    """The batches of an epoch. The first `skipped` have been trained on; `restore` comes after them."""

    def __init__(self, loader: DataLoader, skipped: int, restore: Callable[[], None]) -> None:
        self._loader = loader
        self._skipped = skipped
        self._restore = restore

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[TensorDict]:
        batches = iter(self._loader)
        yield from islice(batches, self._skipped)
        self._restore()
        yield from batches


def _generators(torchs: bool = True) -> Dict[str, Any]:
    """The states of the global random generators; `torchs` are not what data are shuffled with."""
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (the generator that others use)
    state: Dict[str, Any] = {
        "python": (version, torch.tensor(numbers), gauss),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
    }
    if torchs:
        state["torch"] = torch.get_rng_state()
        state["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return state


def _set_generators(state: Dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "torch" in state:
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


def _data(metric: Metric) -> Dict[str, Any]:
    """What a metric has counted: whatever of it is data, which a checkpoint may hold, and not another object."""
    return {name: _plain(value) for name, value in vars(metric).items() if _is_data(value)}


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_data(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_data, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _set_data(metric: Metric, data: Dict[str, Any]) -> None:
    for name, value in data.items():
        counted = getattr(metric, name, None)
        if isinstance(value, dict) and isinstance(counted, dict):
            # It may be a dictionary of another kind.
            counted.clear()
            counted.update(value)
        else:
            setattr(metric, name, value)
