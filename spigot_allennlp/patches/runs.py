"""
Runs of `allennlp train`: one at a time in a serialization directory, and no key of `distributed` is ignored.
"""

import fcntl
import os
from typing import Any, Callable, Dict, Optional

from allennlp.commands import train
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.models import Model
from allennlp.training import util as training_util

from spigot_allennlp.patches.replacement import replace, replace_everywhere

_OF_DISTRIBUTED = ("cuda_devices", "ddp_accelerator", "num_nodes", "primary_address", "primary_port")

# Descriptors of the directories that this process trains in, by their path.
_locked: Dict[str, int] = {}


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    replace(training_util, "create_serialization_dir", _locked_directory)
    replace_everywhere(train, "train_model", _known_keys_and_unlocked_directory)


def _locked_directory(original: Callable) -> Callable:
    """
    Two runs in one directory, a forgotten one and its recovery for example, would mix their checkpoints and metrics.
    The directory itself is locked, not a file in it: `--force` deletes those, and the lock of a process that was killed
    goes with it.
    """

    def create_serialization_dir(params: Params, serialization_dir: Any, recover: bool, force: bool) -> None:
        path = os.path.abspath(serialization_dir)
        if params.params.get("distributed", {}).get("num_nodes", 1) > 1:
            # All nodes may train in a directory that they share.
            return original(params, serialization_dir, recover, force)
        if os.path.isdir(path):
            _lock(path)
        try:
            original(params, serialization_dir, recover, force)
        except BaseException:
            _unlock(path)
            raise
        # With `--force` it is another one of the same name.
        _unlock(path)
        _lock(path)

    return create_serialization_dir


def _lock(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(
            f"{path}: another run is being trained in this directory. Valid: to wait until it ends, to end it, or "
            "another directory"
        ) from None
    except OSError:
        # A file system without locks.
        os.close(descriptor)
        return
    _locked[path] = descriptor


def _unlock(path: str) -> None:
    descriptor = _locked.pop(path, None)
    if descriptor is not None:
        os.close(descriptor)


def _known_keys_and_unlocked_directory(original: Callable) -> Callable:
    """AllenNLP ignores what it does not know of `distributed`."""

    def train_model(params: Params, serialization_dir: Any, *args: Any, **kwargs: Any) -> Optional[Model]:
        unknown = [key for key in params.params.get("distributed") or () if key not in _OF_DISTRIBUTED]
        if unknown:
            keys = ", ".join(map(repr, unknown))
            raise ConfigurationError(f"'distributed' has no key {keys}; valid: {', '.join(_OF_DISTRIBUTED)}")
        before = set(_locked)
        try:
            return original(params, serialization_dir, *args, **kwargs)
        finally:
            for path in set(_locked) - before:
                _unlock(path)

    return train_model
