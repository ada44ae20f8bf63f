"""
The metrics of a training and of an evaluation, as a short table: `show_metrics.py metrics.json test_metrics.json`
"""

import json
import sys
from pathlib import Path

PREFIX = "best_validation_"


def main(training: Path, evaluation: Path) -> None:
    trained, tested = json.loads(training.read_text()), json.loads(evaluation.read_text())
    # What begins with "_" is for the files.
    names = [key[len(PREFIX) :] for key in trained if key.startswith(PREFIX) and not key.startswith(f"{PREFIX}_")]
    print(f"\nBest epoch: {trained['best_epoch']}\n\n{'':24}{'validation':>12}{'test':>12}")
    for name in names:
        values = (trained[PREFIX + name], tested.get(name))
        print(f"{name:24}" + "".join(f"{'' if value is None else format(value, '.4f'):>12}" for value in values))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
