"""
What came of a study: one tidy table (CSV, JSON), and a summary (Markdown).
"""

import csv
import datetime
import json
import math
import statistics
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from spigot_allennlp.commands.study.design import Design, Run
from spigot_allennlp.commands.study.run_folder import read_epochs, read_state
from spigot_allennlp.commands.study.validation_metric import ValidationMetric
from spigot_allennlp.files import write_atomically, written_atomically

# Of the machine and the moment, not of the run; times are given by epoch.
_LEFT_OUT = ("training_duration", "epoch", "training_start_epoch", "training_epochs")


class Result(NamedTuple):
    """
    # Parameters

    run : `Run`
        The run that the result belongs to.
    finished : `bool`
        Whether training has ended.
    epochs : `List[Dict[str, Any]]`
        The metrics of each epoch, with `epoch` and `epoch_seconds`.
    final : `Dict[str, Any]`
        `best_epoch`, `best_validation_*` and, where the config evaluates on test data, `test_*`; empty until finished.
    """

    run: Run
    finished: bool
    epochs: List[Dict[str, Any]]
    final: Dict[str, Any]


class Setting(NamedTuple):
    """The runs of one setting, which differ in their seeds."""

    name: str
    settings: Dict[str, Any]
    results: List[Result]

    def values(self, metric: str) -> List[float]:
        values = [result.final.get(metric) for result in self.results]
        return [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]

    def mean(self, metric: str) -> Optional[float]:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def rank(self, metric: ValidationMetric) -> Tuple[int, float]:
        return len(self.values(f"best_validation_{metric.name}")), metric.score(self.mean)


def read_result(run: Run, folder: Path) -> Result:
    """
    # Parameters

    run : `Run`
        The run that the result belongs to.
    folder : `Path`
        Folder of the run.
    """
    state = read_state(folder)
    training = folder / "training"
    epochs = []
    before = 0.0
    for epoch, record in read_epochs(folder).items():
        # Counted from where training was begun or resumed.
        duration = _seconds(record["training_duration"])
        seconds = duration if epoch in state["first_epochs"] else duration - before
        before = duration
        metrics = {key: value for key, value in record.items() if key.startswith(("training_", "validation_"))}
        epochs.append({"epoch": epoch, "epoch_seconds": round(seconds, 3), **_kept(metrics)})
    final: Dict[str, Any] = {}
    if state["finished"]:
        metrics = json.loads((training / "metrics.json").read_text())
        final = _kept({key: value for key, value in metrics.items() if key.startswith(("best_", "test_"))})
    return Result(run, state["finished"], epochs, final)


def _kept(metrics: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in metrics.items() if key not in _LEFT_OUT and not key.endswith("_memory_MB")}


def _seconds(duration: str) -> float:
    """Of a printed `datetime.timedelta`."""
    days, _, clock = duration.rpartition(", ")
    hours, minutes, seconds = clock.split(":")
    total = datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    return total.total_seconds() + (86400 * int(days.split()[0]) if days else 0)


def settings_of(results: Iterable[Result]) -> List[Setting]:
    """In the order of the study, of finished runs only."""
    settings: Dict[Tuple[str, str], Setting] = {}
    for result in results:
        run = result.run
        key = (run.name, json.dumps(run.settings, sort_keys=True))
        setting = settings.setdefault(key, Setting(run.name, run.settings, []))
        if result.finished:
            setting.results.append(result)
    return [setting for setting in settings.values() if setting.results]


def best_settings(settings: Iterable[Setting], metric: ValidationMetric) -> List[Setting]:
    """The best of each name, among those with most seeds: one that fails with some is not chosen for the others."""
    best: Dict[str, Setting] = {}
    for setting in settings:
        if setting.name not in best or setting.rank(metric) > best[setting.name].rank(metric):
            best[setting.name] = setting
    return list(best.values())


def write_tables(directory: Path, results: List[Result]) -> None:
    """
    `results.csv` and `results.json`: a row for each run and epoch, with all its settings and metrics. What is not
    known, and in JSON what is not finite, is empty (`null`).
    """
    rows = []
    for result in results:
        run = result.run
        settings = {
            "run": run.folder,
            "name": run.name,
            "config": run.config,
            "estimator": run.estimator,
            **run.settings,
            "seed": run.seed,
            "finished": result.finished,
        }
        rows += [{**settings, **epoch, **result.final} for epoch in result.epochs]
    settings = [{**result.run.settings} for result in results]
    names = ["run", "name", "config", "estimator", *_names(settings), "seed", "finished"]
    columns = list(dict.fromkeys([*names, *_names(r.epochs[0] for r in results if r.epochs), *_names(rows)]))
    rows = [{column: row.get(column) for column in columns} for row in rows]
    write_atomically(directory / "results.json", json.dumps([_finite(row) for row in rows], indent=1) + "\n")
    with written_atomically(directory / "results.csv") as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: json.dumps(v) if isinstance(v, (list, dict, bool)) else v for key, v in row.items()})


def _names(rows: Iterable[Dict[str, Any]]) -> List[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _finite(row: Dict[str, Any]) -> Dict[str, Any]:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


def write_summary(directory: Path, design: Design, results: List[Result]) -> None:
    """
    `summary.md`: the best setting of each name and all settings, with means and standard deviations over the seeds.
    """
    settings = settings_of(results)
    varying, metric = design.varying(), design.metric
    sections = [f"# Study of {design.runs[0].config}\n"]
    finished = sum(result.finished for result in results)
    explanation = (
        f"{finished} of {len(results)} runs. Mean ± standard deviation over the seeds (n of them), at each run's best "
        f"epoch on the validation data ({metric.direction} is better)"
    )
    if any(name.startswith("test_") for result in results for name in result.final):
        explanation += "; `test` columns are of those same weights"
    sections.append(f"{explanation}.\n")
    if _ignores_step_size(design):
        sections.append(
            "STE's step size multiplies its gradient, whose size the optimizer divides out again: where no other loss "
            "reaches the scorer, settings that differ only in it train the same model up to rounding, and their order "
            "says nothing.\n"
        )
    if settings:
        sections += ["## The best setting of each\n", _table(best_settings(settings, metric), varying, metric)]
        sections += ["## All settings\n", _table(settings, varying, metric)]
    unfinished = [
        f"- {result.run.describe(varying)} (`runs/{result.run.folder}`)" for result in results if not result.finished
    ]
    if unfinished:
        sections += ["## Not finished\n", "\n".join(unfinished) + "\n"]
    write_atomically(directory / "summary.md", "\n".join(sections))


def _ignores_step_size(design: Design) -> bool:
    """Whether step sizes of STE are compared under an optimizer whose steps do not depend on the gradient's size."""
    optimizers = [run.params["trainer"].get("optimizer") for run in design.runs if run.estimator == "ste"]
    names = {optimizer.get("type") if isinstance(optimizer, dict) else optimizer for optimizer in optimizers}
    sizes = {run.settings.get("step_size") for run in design.runs if run.estimator == "ste"}
    return len(sizes) > 1 and bool(names & {None, "adam", "adamw", "adamax", "adagrad", "huggingface_adamw", "rmsprop"})


def _table(settings: List[Setting], varying: List[str], metric: ValidationMetric) -> str:
    metrics = _metrics(settings, metric)
    shown = [name for name in varying if any(name in setting.settings for setting in settings)]
    header = ["", *shown, "n", *(name.replace("best_validation_", "").replace("test_", "test ") for name in metrics)]
    rows = []
    for setting in settings:
        values = [_cell(setting.settings.get(name)) for name in shown]
        rows.append(
            [setting.name, *values, len(setting.results), *(mean_and_spread(setting.values(m)) for m in metrics)]
        )
    return table(header, rows)


def _metrics(settings: List[Setting], metric: ValidationMetric) -> List[str]:
    """The validation metric first, then the others; what models keep off the progress bar is left to the table."""
    names = _names(result.final for setting in settings for result in setting.results)
    first = [f"best_validation_{name}" for _, name in metric.parts]
    rest = [name for name in names if name.startswith(("best_validation_", "test_")) and name not in first]
    return first + [name for name in rest if "_validation__" not in name and not name.startswith("test__")]


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def mean_and_spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation`; the latter from two values on."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"
