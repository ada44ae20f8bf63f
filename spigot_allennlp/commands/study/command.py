"""
The `study` subcommand compares estimators: it puts each of them, with each of its settings and each seed, into one
config, trains them all, and writes tables and figures of what came of it.

    allennlp study training_configs/clusters/latent.jsonnet -s studies/clusters \
        --estimators spigot ste marginals --step-sizes 0.1 1 10 --seeds 1 2 3 \
        --baselines training_configs/clusters/gold.jsonnet training_configs/clusters/none.jsonnet
"""

import argparse
import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, List, Optional, Sequence, Set, Union

from allennlp.commands.subcommand import Subcommand
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import SigTermReceived
from filelock import FileLock, Timeout
from tqdm import tqdm

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.commands.errors import as_messages
from spigot_allennlp.commands.study.design import Design, Run, design, read_description
from spigot_allennlp.commands.study.executors import Executor, Job
from spigot_allennlp.commands.study.figures import draw_figures
from spigot_allennlp.commands.study.report import (
    Result,
    mean_and_spread,
    read_result,
    write_summary,
    write_tables,
)
from spigot_allennlp.commands.study.run_folder import read_epochs, read_state
from spigot_allennlp.commands.study.validation_metric import ValidationMetric
from spigot_allennlp.files import write_atomically

_LOG_LINES = 12

_DESCRIPTION = """
Train a config with several estimators, settings and seeds, several runs at once, and compare them.

RESULTS gets results.csv and results.json (a row for each run and epoch), summary.md and figures/. The same command
again trains only what is not finished, and resumes what was interrupted; with more estimators, settings or seeds it
trains those. Runs are told apart by all their resolved settings. A RESULTS of another config is refused.
"""

_EPILOG = """
A study file (--grid) has the flags as its keys, and settings of single estimators, where a list is tried one by one:

    {
      estimators: ['ste', { type: 'spigot', step_size: [0.1, 1], num_steps: [1, 5] },
                   { name: 'REINFORCE', type: 'score_function', baseline: 'self_critic' }],
      baselines: ['training_configs/clusters/gold.jsonnet'],
      learning_rates: [0.001, 0.002],
      overrides: { 'data_loader.batches_per_epoch': [10, 50] },
      seeds: [1, 2, 3],
    }

AllenNLP finds this subcommand in directories with an .allennlp_plugins file that names spigot_allennlp, or through
~/.allennlp/plugins; `python -m spigot_allennlp study` is the same and needs neither.
"""


@Subcommand.register("study")
class Study(Subcommand):
    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        subparser = parser.add_parser(
            self.name,
            description=_DESCRIPTION,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            help="Compare estimators: train a config with each, with several settings and seeds.",
        )
        subparser.add_argument("param_path", type=str, help="the config that the estimators are put into")
        subparser.add_argument(
            "-s",
            "--serialization-dir",
            required=True,
            metavar="RESULTS",
            help="the folder for runs, tables and figures",
        )
        subparser.add_argument("--grid", metavar="FILE", help="a study file, as below; flags replace what it says")
        subparser.add_argument(
            "--estimators", nargs="+", metavar="NAME", help="registered names (without: the config's own estimator)"
        )
        subparser.add_argument(
            "--step-sizes", nargs="+", type=_number, metavar="X", help="for those estimators that take a step_size"
        )
        subparser.add_argument(
            "--num-steps", nargs="+", type=int, metavar="N", help="for those estimators that take num_steps"
        )
        subparser.add_argument("--learning-rates", nargs="+", type=_number, metavar="X", help="of trainer.optimizer.lr")
        subparser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="(without: the config's own)")
        subparser.add_argument(
            "--baselines", nargs="+", metavar="CONFIG", help="further configs, which keep their own models"
        )
        subparser.add_argument(
            "-o", "--overrides", type=str, default="", help="as in `allennlp train`; for the baselines, too"
        )
        subparser.add_argument(
            "--latent-metric", metavar="NAME", help="of the latent structure, to draw (without: v_measure or uas)"
        )
        subparser.add_argument(
            "--downstream-metric", metavar="NAME", help="to draw it against (without: the config's validation_metric)"
        )
        subparser.add_argument("--workers", type=int, metavar="N", help="runs at once (without: one for each core)")
        subparser.add_argument(
            "--executor", choices=Executor.list_available(), default="local", help="where runs are trained"
        )
        subparser.set_defaults(func=study_from_args)
        return subparser


def _number(text: str) -> Union[int, float]:
    """As jsonnet has it, so that a study file and the flags mean the same run: 1.0 is 1."""
    value = float(text)
    return int(value) if value.is_integer() else value


@as_messages()
def study_from_args(args: argparse.Namespace) -> None:
    """
    # Errors

    `SystemExit` with a message if the study cannot begin, or if a run failed.
    """
    names = ("estimators", "baselines", "step_sizes", "num_steps", "learning_rates", "seeds")
    try:
        if args.workers is not None:
            at_least_one("--workers", args.workers)
        description = read_description(args.grid, {name: getattr(args, name) for name in names})
        failed = study(
            design(args.param_path, description, args.overrides),
            Path(args.serialization_dir),
            include_package=args.include_package,
            workers=args.workers,
            executor=args.executor,
            latent_metric=args.latent_metric,
            downstream_metric=args.downstream_metric,
        )
    except (KeyboardInterrupt, SigTermReceived):
        sys.exit("interrupted; the same command goes on from here")
    if failed:
        sys.exit(f"{len(failed)} runs failed:\n" + "\n".join(f"  {folder}" for folder in failed))


def study(
    plan: Design,
    directory: Path,
    include_package: Sequence[str] = (),
    workers: Optional[int] = None,
    executor: str = "local",
    latent_metric: str = None,
    downstream_metric: str = None,
) -> List[str]:
    """
    Train what is not finished, then write tables, summary and figures of all runs of `plan`.

    # Parameters

    plan : `Design`
        Runs of the study.
    directory : `Path`
        Directory of the study, created if it does not exist.
    include_package : `Sequence[str]`, optional
        Modules that the runs import besides the plugins.
    workers : `int`, optional
        Number of runs that are trained at once.
    executor : `str`, optional (default = `"local"`)
        Name of a registered `Executor`.
    latent_metric, downstream_metric : `str`, optional
        Metrics that the figure of the latent structure shows.

    # Returns

    `List[str]`
        The folders of the runs that failed.

    # Errors

    `ConfigurationError` if `directory` belongs to another config, or is in use, and for a metric that no run has.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(str(directory / ".lock"), timeout=0):
            check_directory(directory, plan)
            folders = [directory / "runs" / run.folder for run in plan.runs]
            for run, folder in zip(plan.runs, folders):
                prepare_folder(run, folder)
            wanted = MetricNames(plan, [name for name in (latent_metric, downstream_metric) if name is not None])
            failed = train(plan, folders, list(include_package), workers, executor, wanted)
            results = [read_result(run, folder) for run, folder in zip(plan.runs, folders)]
            write_tables(directory, results)
            write_summary(directory, plan, results)
            print(f"Tables and summary: {directory}/results.csv, results.json, summary.md")
            try:
                figures = draw_figures(directory / "figures", results, plan, latent_metric, downstream_metric)
                print("Figures: " + (", ".join(map(str, figures)) or "none, as no run has finished"))
            except ImportError:
                print("No figures, which need matplotlib: pip install 'spigot-allennlp[study]'")
            return [str(folders[index]) for index in failed]
    except Timeout as error:
        raise ConfigurationError(f"another study is at work in {directory}") from error


def check_directory(directory: Path, plan: Design) -> None:
    """
    Compare what the study's configs say with what they said when `directory` was made, and keep what is new.

    # Errors

    `ConfigurationError` naming what differs.
    """
    path = directory / "study.json"
    if path.exists():
        before = json.loads(path.read_text())
    elif any(child.name != ".lock" for child in directory.iterdir()):
        raise ConfigurationError(f"{directory} is not empty, and not the folder of a study")
    else:
        before = {}
    for name, params in plan.configs.items():
        differences = _differences(before.get(name, params), params)
        if differences:
            raise ConfigurationError(
                f"{directory} is the folder of another study: its config {name!r} differs in "
                + "; ".join(differences)
                + ". Choose another folder, or the same settings"
            )
    write_atomically(path, json.dumps({**before, **plan.configs}, indent=1) + "\n")


def _differences(before: Any, now: Any, key: str = "") -> List[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [*before, *(name for name in now if name not in before)]
        absent = object()
        return [
            difference
            for name in names
            for difference in _differences(
                before.get(name, absent), now.get(name, absent), f"{key}.{name}" if key else name
            )
        ]
    if before == now:
        return []
    texts = ["nothing" if type(value) is object else json.dumps(value) for value in (before, now)]
    return [f"{key} ({texts[0]} then, {texts[1]} now)"]


def prepare_folder(run: Run, folder: Path) -> None:
    """
    # Errors

    `ConfigurationError` if the folder is of a run with other settings.
    """
    path = folder / "params.json"
    if path.exists():
        differences = _differences(json.loads(path.read_text()), run.params)
        if differences:
            raise ConfigurationError(f"{folder} is of another run: it differs in {'; '.join(differences)}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(run.params, indent=1) + "\n")


class MetricNames:
    """
    Finds out whether there are metrics of these names. Only a run that has validated knows what metrics it has: once
    one of each config has, all is known.

    # Parameters

    plan : `Design`
        Runs of the study.
    names : `List[str]`
        Names of the metrics, as the user gave them.
    """

    def __init__(self, plan: Design, names: List[str]) -> None:
        self._wanted = names
        self._unheard = {run.config for run in plan.runs}
        self._found: Set[str] = set()

    def look(self, run: Run, folder: Path) -> None:
        """
        # Errors

        `ConfigurationError` if all is known, and no run has a metric.
        """
        missing = [name for name in self._wanted if name not in self._found]
        if not missing or run.config not in self._unheard:
            return
        prefix = "validation_"
        metrics = {name for epoch in read_epochs(folder).values() for name in epoch if name.startswith(prefix)}
        if metrics:
            self._unheard.remove(run.config)
            self._found |= {name[len(prefix) :] for name in metrics}
        if not self._unheard and not self._found.issuperset(missing):
            name = next(name for name in missing if name not in self._found)
            raise ConfigurationError(
                f"no run has the validation metric {name!r}; valid: {', '.join(sorted(self._found))}"
            )


def train(
    plan: Design,
    folders: List[Path],
    packages: List[str],
    workers: Optional[int],
    executor: str,
    wanted: MetricNames,
) -> List[int]:
    """
    Train the runs that are not finished, and show how far they are.

    # Returns

    `List[int]`
        The indices of those that failed.

    # Errors

    `ConfigurationError` for a metric that no run has, as soon as that is known.
    """
    for run, folder in zip(plan.runs, folders):
        wanted.look(run, folder)
    todo = [index for index, folder in enumerate(folders) if not read_state(folder)["finished"]]
    # One of each config goes first: what is wrong with a config shows before hours are spent on another one.
    first = {plan.runs[index].config: index for index in reversed(todo)}
    todo.sort(key=lambda index: first[plan.runs[index].config] != index)
    if len(todo) < len(folders):
        print(f"{len(folders) - len(todo)} of {len(folders)} runs were finished before")
    failed: List[int] = []
    if not todo:
        return failed
    jobs = [Job(str(folders[index]), packages, os.getcwd()) for index in todo]
    # As AllenNLP has it where a config does not say.
    num_epochs = [plan.runs[index].params["trainer"].get("num_epochs", 20) for index in todo]
    epochs = [0] * len(todo)
    ended = 0
    varying = plan.varying()
    bar = tqdm(total=sum(num_epochs), unit="epoch", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with bar, closing(Executor.by_name(executor)().execute(jobs, workers)) as progress:
        for running, just_ended in progress:
            for job in [*running, *(job for job, _ in just_ended)]:
                wanted.look(plan.runs[todo[job]], folders[todo[job]])
            for job, status in just_ended:
                run, folder = plan.runs[todo[job]], folders[todo[job]]
                result = read_result(run, folder)
                if status == 0 and result.finished:
                    outcome = _outcome(result, plan.metric)
                else:
                    failed.append(todo[job])
                    outcome = _failure(folder, status)
                ended += 1
                epochs[job] = num_epochs[job]
                with bar.external_write_mode():
                    print(f"[{ended}/{len(todo)}] {run.describe(varying)}: {outcome}", flush=True)
            if not bar.disable:
                for job in running:
                    epochs[job] = len(list((folders[todo[job]] / "training").glob("metrics_epoch_*.json")))
                bar.n = sum(epochs)
                waiting = len(todo) - ended - len(running)
                bar.set_postfix_str(
                    f"runs: {ended} ended ({len(failed)} failed), {len(running)} at work, {waiting} waiting"
                )
    return failed


def _outcome(result: Result, metric: ValidationMetric) -> str:
    seconds = sum(epoch["epoch_seconds"] for epoch in result.epochs)
    value = mean_and_spread([result.final[f"best_validation_{metric.name}"]])
    return f"validation {metric.name} {value} (epoch {result.final['best_epoch']}), {seconds:.0f} s"


def _failure(folder: Path, status: int) -> str:
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = (folder / "log.txt").read_text(errors="replace").splitlines()
    tail = [f"    {line}" for line in lines[-_LOG_LINES:]]
    return "\n".join([f"FAILED, {how}; the end of {folder / 'log.txt'}:", *tail])
