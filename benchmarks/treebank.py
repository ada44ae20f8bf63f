"""
Trains every parser of `training_configs/treebank` on the same data with the same seed and budget, and tabulates what
they reach on the development set.

    python benchmarks/treebank.py --train train.conllu --dev dev.conllu --runs runs/treebank

The column of training sentences per second is taken from `training.json` (`benchmarks/training.py`), which measures
all models side by side. A run that has finished is not run again, so that the table can be made from the runs of
several calls. Writes `benchmarks/treebank.json` and `benchmarks/treebank.md`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict

ROOT = Path(__file__).resolve().parent.parent
PARSER = "syntactic_parser"
EXPERIMENTS = {
    "no_syntax": "no tree",
    "joint_pipeline": "predicted tree, shared encoder, joint training, no gradient through it",
    "modular_pipeline": "predicted tree, parser trained before and frozen",
    "ste": "straight-through",
    "spigot": "SPIGOT",
    "marginals": "structured attention",
    "gold_syntax": "gold tree, also on dev",
}
COLUMNS = {
    "labeled F1": "labeled_f1",
    "unlabeled F1": "unlabeled_f1",
    "UAS": "uas",
    "LAS": "las",
    "depth": "tree_depth",
}


def train(experiment: str, arguments: argparse.Namespace) -> dict:
    """The metrics of one run, which is done if it has not been."""
    run = arguments.runs / experiment
    if not (run / "model.tar.gz").exists():
        environment = {
            **os.environ,
            "SPIGOT_TRAIN_DATA": arguments.train,
            "SPIGOT_VALIDATION_DATA": arguments.dev,
            "SPIGOT_PARSER_ARCHIVE": str(arguments.runs / PARSER / "model.tar.gz"),
            "SPIGOT_SEED": str(arguments.seed),
        }
        config = f"training_configs/treebank/{experiment}.jsonnet"
        command = [sys.executable, "-m", "allennlp", "train", config, "--include-package", "spigot_allennlp"]
        command += ["--serialization-dir", str(run), "--force", "--file-friendly-logging"]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    return json.loads((run / "metrics.json").read_text())


def table(results: dict, speeds: Dict[str, float]) -> str:
    """Markdown; the best epoch by labelled F1 on dev."""
    lines = [f"| syntax | {' | '.join(COLUMNS)} | sentences/s |", f"|---|{'---|' * (len(COLUMNS) + 1)}"]
    for experiment, description in EXPERIMENTS.items():
        metrics = results[experiment]
        values = [metrics.get(f"best_validation_{key}") for key in COLUMNS.values()]
        cells = [
            "" if v is None else f"{v:.1f}" if key == "tree_depth" else f"{100 * v:.1f}"
            for key, v in zip(COLUMNS.values(), values)
        ]
        cells.append(f"{speeds[experiment]:.0f}" if experiment in speeds else "")
        lines.append(f"| `{experiment}`: {description} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="CoNLL-U file with enhanced graphs")
    parser.add_argument("--dev", required=True, help="likewise")
    parser.add_argument("--runs", type=Path, default=Path("runs/treebank"), help="where the runs are kept")
    parser.add_argument("--seed", type=int, default=13370)
    arguments = parser.parse_args()
    arguments.train, arguments.dev = (os.path.abspath(path) for path in (arguments.train, arguments.dev))
    arguments.runs = arguments.runs.absolute()

    train(PARSER, arguments)
    results = {experiment: train(experiment, arguments) for experiment in EXPERIMENTS}
    (ROOT / "benchmarks/treebank.json").write_text(json.dumps(results, indent=2) + "\n")
    measured = ROOT / "benchmarks/training.json"
    speeds = json.loads(measured.read_text())["sentences_per_second"] if measured.exists() else {}
    (ROOT / "benchmarks/treebank.md").write_text(table(results, speeds))
    print(table(results, speeds))


if __name__ == "__main__":
    main()
