"""
The process of one run: `python -m spigot_allennlp.commands.study.child FOLDER PARENT PACKAGE...`

    FOLDER/params.json    what is trained
    FOLDER/training/      AllenNLP's serialization directory
    FOLDER/state.json     the epochs that training was begun at, more than one if it was interrupted; whether it is over
    FOLDER/log.txt        what is printed
"""

import ctypes
import json
import os
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, List

from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.plugins import import_plugins
from allennlp.common.util import import_module_and_submodules
from allennlp.training import Checkpointer
from filelock import FileLock

# How long to wait for the process that trained this run before, which may be dying.
_LOCK_TIMEOUT = 30


def main(folder: Path, parent: int, packages: List[str]) -> None:
    """
    Train the run in `folder`, from its last checkpoint if there is one.
    """
    die_with(parent)
    with FileLock(str(folder / ".lock"), timeout=_LOCK_TIMEOUT):
        import_plugins()
        for package in packages:
            import_module_and_submodules(package)
        training = folder / "training"
        epoch = remove_incomplete_checkpoints(training)
        state = read_state(folder)
        write_state(
            folder,
            {"first_epochs": [*state["first_epochs"], epoch or 0] if epoch is not None else [0], "finished": False},
        )
        train_model(
            Params.from_file(str(folder / "params.json")),
            str(training),
            recover=epoch is not None,
            force=epoch is None,
            include_package=packages,
            file_friendly_logging=True,
            return_model=False,
        )
        write_state(folder, {**read_state(folder), "finished": True})
        # The weights are in the archive, and nothing will be resumed.
        for pattern in ("model_state_e*.th", "training_state_e*.th", "best*.th"):
            for path in training.glob(pattern):
                path.unlink()


def die_with(parent: int) -> None:
    """
    Let the kernel end this process when its parent ends, in whatever way: nobody would read on, and a second study must
    not find a run of the first one's still being trained. Where there is no such service, other than on Linux, the
    run's lock has to do.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the study has ended")


def remove_incomplete_checkpoints(training: Path) -> Any:
    """
    Being killed while a checkpoint is written leaves a part of it, with which `--recover` would fail; the checkpoint
    before it is still there.

    # Returns

    `Optional[int]`
        The number of epochs after which the latest checkpoint was written, or `None` if there is none.
    """
    epochs = []
    for model_state in training.glob("model_state_e*_b*.th"):
        training_state = model_state.with_name(model_state.name.replace("model_state", "training_state"))
        if zipfile.is_zipfile(model_state) and training_state.exists() and zipfile.is_zipfile(training_state):
            epochs.append(Checkpointer._parse_model_state_path(model_state)[0])
        else:
            model_state.unlink()
            training_state.unlink(missing_ok=True)
    return max(epochs, default=None)


def read_state(folder: Path) -> Dict[str, Any]:
    """`{"first_epochs": [...], "finished": bool}`"""
    path = folder / "state.json"
    return json.loads(path.read_text()) if path.exists() else {"first_epochs": [], "finished": False}


def write_state(folder: Path, state: Dict[str, Any]) -> None:
    write_whole(folder / "state.json", json.dumps(state))


def write_whole(path: Path, text: str) -> None:
    """Whoever is killed while writing leaves the old file."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
