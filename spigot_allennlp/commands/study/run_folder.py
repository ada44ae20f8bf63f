"""
What a run's folder holds:

    params.json    what is trained
    training/      AllenNLP's serialization directory
    state.json     the epochs that training was begun at, more than one if it was interrupted, and whether it is over
    log.txt        what was printed
"""

import json
from pathlib import Path
from typing import Any, Dict

from spigot_allennlp.files import write_atomically


def read_state(folder: Path) -> Dict[str, Any]:
    """`{"first_epochs": [...], "finished": bool}`"""
    path = folder / "state.json"
    return json.loads(path.read_text()) if path.exists() else {"first_epochs": [], "finished": False}


def read_epochs(folder: Path) -> Dict[int, Dict[str, Any]]:
    """The metrics of each epoch, except epochs whose file an interruption has left damaged."""
    epochs = {}
    for path in (folder / "training").glob("metrics_epoch_*.json"):
        try:
            metrics = json.loads(path.read_text())
        except ValueError:
            continue
        epochs[metrics["epoch"]] = metrics
    return dict(sorted(epochs.items()))


def write_state(folder: Path, first_epochs: Any, finished: bool) -> None:
    write_atomically(folder / "state.json", json.dumps({"first_epochs": first_epochs, "finished": finished}))
