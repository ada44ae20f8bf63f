"""
Searches for the settings of a configuration with Optuna:

    python docs/examples/optuna_search.py training_configs/syntactic_then_semantic/spigot.jsonnet runs/search

Every trial is a training in a directory of its own. Trials that were finished are kept in `search.db`: the same command
goes on where it was, and several of them, also on several machines that share the directory, search together.
"""

import argparse
import json
from pathlib import Path
from typing import Tuple

import optuna
from allennlp.commands.train import train_model_from_file
from allennlp.common import Params

import spigot_allennlp  # noqa: F401


def settings(trial: optuna.Trial) -> dict:
    """What is searched, as the overrides of a configuration (what `allennlp train -o` takes)."""
    return {
        "model.estimator.step_size": trial.suggest_float("step_size", 0.1, 10.0, log=True),
        "model.dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "trainer.optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
    }


def validation_metric(config: str, overrides: str) -> Tuple[str, str]:
    """Its sign and name, as the configuration has it: `("+", "labeled_f1")`."""
    name = Params.from_file(config, overrides)["trainer"].get("validation_metric", "-loss")
    return name[0], name[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a training configuration")
    parser.add_argument("directory", type=Path, help="for the runs and search.db")
    parser.add_argument("--trials", type=int, default=20, help="how many to run now (default: %(default)s)")
    parser.add_argument("-o", "--overrides", default="{}", help="JSON, for all trials, as in allennlp train")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    sign, metric = validation_metric(arguments.config, arguments.overrides)

    def objective(trial: optuna.Trial) -> float:
        run = arguments.directory / f"trial{trial.number}"
        overrides = json.dumps({**json.loads(arguments.overrides), **settings(trial)})
        train_model_from_file(arguments.config, run, overrides=overrides, force=True)
        return json.loads((run / "metrics.json").read_text())[f"best_validation_{metric}"]

    study = optuna.create_study(
        study_name=Path(arguments.config).stem,
        storage=f"sqlite:///{arguments.directory}/search.db",
        direction="maximize" if sign == "+" else "minimize",
        load_if_exists=True,
    )
    study.optimize(objective, n_trials=arguments.trials)
    best = study.best_trial
    print(f"best: trial {best.number} of {len(study.trials)}, {metric} {best.value:.4f}")
    print(json.dumps(best.params, indent=2))


if __name__ == "__main__":
    main()
