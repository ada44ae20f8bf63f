"""
The process of one run: `python -m spigot_allennlp.commands.study.worker FOLDER PARENT PACKAGE...`
"""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path
from typing import List

from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.plugins import import_plugins
from allennlp.common.util import import_module_and_submodules
from filelock import FileLock

from spigot_allennlp.commands.study.run_folder import read_epochs, read_state, write_state

# How long to wait for the process that trained this run before, which may be dying.
_LOCK_TIMEOUT = 30


def main(folder: Path, parent: int, packages: List[str]) -> None:
    """
    Train the run in `folder`, from its last checkpoint if there is one.

    # Parameters

    folder : `Path`
        Folder of the run.
    parent : `int`
        Process that must not be outlived.
    packages : `List[str]`
        Modules to import besides the plugins.
    """
    die_with(parent)
    with FileLock(str(folder / ".lock"), timeout=_LOCK_TIMEOUT):
        import_plugins()
        for package in packages:
            import_module_and_submodules(package)
        training = folder / "training"
        checkpoints = [re.match(r"model_state_e(\d+)_b\d+", path.name) for path in training.glob("model_state_e*.th")]
        epochs = [int(checkpoint[1]) for checkpoint in checkpoints if checkpoint]
        if epochs and not read_epochs(folder).keys() >= set(range(max(epochs))):
            # What cannot be read is trained again.
            epochs = []
        # Without a checkpoint there is nothing to recover, and what an interrupted run has left is in the way.
        first_epochs = [*read_state(folder)["first_epochs"], max(epochs)] if epochs else [0]
        write_state(folder, first_epochs, finished=False)
        train_model(
            Params.from_file(str(folder / "params.json")),
            str(training),
            recover=bool(epochs),
            force=not epochs,
            include_package=packages,
            file_friendly_logging=True,
            return_model=False,
        )
        write_state(folder, first_epochs, finished=True)
        # The best weights are in the archive, and nothing will be resumed.
        for pattern in ("model_state_e*.th", "training_state_e*.th", "best*.th"):
            for path in training.glob(pattern):
                path.unlink()


def die_with(parent: int) -> None:
    """
    Have the kernel end this process when its parent ends, in whatever way: a second study must not find that the runs
    of one that was killed are still being trained. Only Linux does that; elsewhere the second study waits for the run's
    lock, and reports the run if that takes too long.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the study has ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
