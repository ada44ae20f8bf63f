"""
What a run leaves in its serialization directory, and reads when it is recovered: files that are whole at every moment,
and states that belong to the model.
"""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch
from allennlp.common import Params
from allennlp.common import util as common_util
from allennlp.training.checkpointer import Checkpointer
from allennlp.training.moving_average import MovingAverage

from spigot_allennlp.files import save_atomically, written_atomically
from spigot_allennlp.patches.replacement import replace


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    _allow_numpy_scalars_in_checkpoints()
    replace(Checkpointer, "save_checkpoint", _whole_checkpoints)
    replace(Params, "to_file", _whole_config)
    replace(common_util, "dump_metrics", _whole_metrics)
    replace(MovingAverage, "load_state_dict", _averages_of_the_model)


def _allow_numpy_scalars_in_checkpoints() -> None:
    """
    `train --recover` reads the training state with `torch.load`, which since torch 2.6 refuses every class
    that is not on its list. NumPy's scalars are not, and get into the training state through learning rates
    (the `cosine` scheduler computes them with NumPy) and through metrics. They are plain numbers: allowing
    them, instead of switching the check off, keeps a checkpoint from elsewhere unable to run code.
    """
    if torch.__version__ < (2, 6):
        return
    scalar = np.float64(0.0).__reduce__()[0]
    numeric = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    allowed: List[Any] = [np.dtype, *{type(np.dtype(code)) for code in numeric}]
    # The same function has one name in files written with NumPy 1 and another in those written with NumPy 2.
    allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    torch.serialization.add_safe_globals(allowed)


def _whole_checkpoints(original: Callable) -> Callable:
    """
    The checkpointer writes a checkpoint's two files in place, and the file of the weights, by which it finds
    checkpoints, first. A run that is killed meanwhile leaves something that cannot be resumed from and that is never
    written again, whatever older checkpoints there are. Here the weights come last, and each file at once.
    """

    def save_checkpoint(self: Checkpointer, trainer: Any) -> None:
        state = trainer.get_checkpoint_state()
        if self._serialization_dir is not None and state is not None:
            when = state.trainer_state["epochs_completed"], state.trainer_state["batches_in_epoch_completed"]
            save_atomically(state.trainer_state, self._training_state_path(*when))
            save_atomically(state.model_state, self._model_state_path(*when))
        # It does not write what is there, and sees to all else, such as removing old checkpoints.
        original(self, SimpleNamespace(get_checkpoint_state=lambda: state))

    return save_checkpoint


def _whole_config(original: Callable) -> Callable:
    """
    A run that is killed while it writes its configuration, the first of its files, would leave half a `config.json`,
    and could be neither recovered nor started anew.
    """

    def to_file(self: Params, params_file: str, preference_orders: Any = None) -> None:
        with written_atomically(params_file) as part:
            original(self, part, preference_orders)

    return to_file


def _whole_metrics(original: Callable) -> Callable:
    """
    Nor may a run that is killed while it writes the metrics of an epoch leave a file that nobody can read.
    """

    def dump_metrics(file_path: Optional[str], metrics: Dict[str, Any], log: bool = False) -> None:
        with nullcontext() if file_path is None else written_atomically(file_path) as part:
            original(part, metrics, log)

    return dump_metrics


def _averages_of_the_model(original: Callable) -> Callable:
    """
    A recovered moving average took the checkpoint's parameters for the model's: it averaged, and assigned
    its averages to, tensors that nobody uses.
    """

    def load_state_dict(self: MovingAverage, state_dict: Dict[str, Any]) -> None:
        for name, _ in self._parameters:
            self._shadows[name].copy_(state_dict["shadows"][name])
            self._backups[name].copy_(state_dict["backups"][name])

    return load_state_dict
