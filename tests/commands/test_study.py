"""Studies from the first run to the last figure, on a small part of the clusters."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Optional

import allennlp.commands
import pytest
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.common.plugins import import_plugins
from allennlp.training import TrainerCallback
from filelock import FileLock

from spigot_allennlp.commands.study import worker
from spigot_allennlp.commands.study.command import study
from spigot_allennlp.commands.study.design import Design, design, read_description
from spigot_allennlp.commands.study.executors import Executor, Job
from spigot_allennlp.commands.study.figures import _bounds, draw_figures
from spigot_allennlp.commands.study.report import read_result, write_summary
from spigot_allennlp.commands.study.run_folder import read_state
from tests.commands.test_allennlp_commands import command
from tests.conftest import PROJECT_ROOT

CLUSTERS = PROJECT_ROOT / "training_configs" / "clusters"
NUM_EPOCHS = 3
TINY = {
    "trainer.num_epochs": NUM_EPOCHS,
    "trainer.callbacks": ["kill_the_study"],
    "data_loader.batches_per_epoch": 2,
    "dataset_reader.train_size": 60,
    "dataset_reader.validation_size": 30,
    "dataset_reader.test_size": 30,
    "evaluate_on_test": True,
}
# What a run is asked to be killed at: "<folder> <epoch>".
KILL = "TEST_STUDY_KILL"


@TrainerCallback.register("kill_the_study")
class KillTheStudy(TrainerCallback):
    """As the machine's owner may, when an epoch is over and its checkpoint not yet written."""

    def on_epoch(self, trainer, metrics, epoch, is_primary=True, **kwargs):
        name, _, when = os.environ.get(KILL, "").partition(" ")
        if name and name in self.serialization_dir and epoch == int(when):
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
            os._exit(1)


@Executor.register("forked")
class ForkedExecutor(Executor):
    """The processes of `LocalExecutor` without their seconds of imports: copies of this one."""

    def __init__(self) -> None:
        super().__init__(cores=2)

    def _start(self, job: Job, threads: int) -> int:
        parent = os.getpid()
        process = os.fork()
        if process:
            return process
        try:  # pragma: no cover
            log = os.open(f"{job.folder}/log.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            # Done before the copy was made.
            worker.import_plugins = lambda: None
            worker.main(Path(job.folder), parent, job.packages)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)

    def _poll(self, handle: int) -> Optional[int]:
        process, status = os.waitpid(handle, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if process else None

    def _stop(self, handle: int) -> None:
        os.kill(handle, signal.SIGKILL)
        os.waitpid(handle, 0)


@pytest.fixture(scope="module", autouse=True)
def imports():
    import_plugins()
    # Imports the larger part of torch at its first use.
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])


def plan(overrides: Dict[str, Any] = TINY, base: str = "latent", **flags: Any) -> Design:
    flags = {"estimators": ["spigot", "marginals"], "seeds": [1, 2], **flags}
    return design(str(CLUSTERS / f"{base}.jsonnet"), read_description(None, flags), json.dumps(overrides))


def rows(directory: Path) -> List[Dict[str, str]]:
    with open(directory / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(records: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "epoch_seconds"} for record in records]


def written(directory: Path) -> Dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.glob("runs/*/training/*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Two estimators, one of them with two step sizes, and a baseline; two seeds."""
    directory = tmp_path_factory.mktemp("study")
    baselines = [str(CLUSTERS / "none.jsonnet")]
    assert study(plan(step_sizes=[0.5, 2], baselines=baselines), directory, executor="forked") == []
    return directory


class TestResults:
    def test_table(self, finished: Path):
        table = rows(finished)
        runs = [(row["name"], row["step_size"], row["seed"]) for row in table]
        settings = [("spigot", "0.5"), ("spigot", "2"), ("marginals", ""), ("none", "")]
        assert runs == [(*setting, seed) for setting in settings for seed in "12" for _ in range(NUM_EPOCHS)]
        assert [int(row["epoch"]) for row in table] == list(range(NUM_EPOCHS)) * 8
        for row in table:
            run = finished / "runs" / row["run"] / "training"
            epoch = json.loads((run / f"metrics_epoch_{row['epoch']}.json").read_text())
            final = json.loads((run / "metrics.json").read_text())
            for name in ("training_loss", "validation_accuracy", "validation_loss"):
                assert float(row[name]) == epoch[name]
            for name in ("best_epoch", "best_validation_accuracy", "test_accuracy"):
                assert float(row[name]) == final[name]
            assert (
                row["finished"] == "true" and float(row["learning_rate"]) == 0.002 and float(row["epoch_seconds"]) > 0
            )
            assert (row["test_v_measure"] == "") == (row["name"] == "none")
            assert not any(name.startswith("peak_") for name in row)

    def test_json_is_the_same_table(self, finished: Path):
        records = json.loads((finished / "results.json").read_text())
        table = rows(finished)
        assert [list(record) for record in records] == [list(row) for row in table]
        for record, row in zip(records, table):
            for name, value in record.items():
                text = "" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)
                assert row[name] == text or (row[name] == "nan" and value is None)

    def test_summary(self, finished: Path):
        lines = (finished / "summary.md").read_text().splitlines()
        table = {tuple(line.split(" | ")[:2]): line.split(" | ") for line in lines if line.startswith("| ")}
        by_setting: Dict[tuple, List[float]] = {}
        for row in rows(finished):
            if row["epoch"] == "0":
                values = by_setting.setdefault((f"| {row['name']}", row["step_size"]), [])
                values.append(float(row["best_validation_accuracy"]))
        for setting, (first, second) in by_setting.items():
            mean, deviation = (first + second) / 2, abs(first - second) / 2**0.5
            assert table[setting][2:4] == ["2", f"{mean:.4f} ± {deviation:.4f}"]
        best = lines[lines.index("## The best setting of each") + 4 :][:3]
        scores = [sum(by_setting["| spigot", size]) for size in ("0.5", "2")]
        assert best[0].startswith(f"| spigot | {'0.5' if scores[0] >= scores[1] else '2'} |")
        assert [line.split(" | ")[0] for line in best[1:]] == ["| marginals", "| none"]
        assert ("`test` columns" in lines[2]) == any(name.startswith("test_") for name in rows(finished)[0])

    def test_summary_of_steps_without_an_effect(self, tmp_path):
        """The optimizer is Adam."""
        for estimator, said in (("ste", True), ("spigot", False)):
            write_summary(tmp_path, plan(estimators=[estimator], step_sizes=[0.5, 2]), [])
            assert ("their order says nothing" in (tmp_path / "summary.md").read_text()) == said

    def test_figures(self, finished: Path):
        pytest.importorskip("matplotlib")
        for name in ("learning_curves", "step_size", "latent_structure"):
            content = (finished / "figures" / f"{name}.png").read_bytes()
            assert content.startswith(b"\x89PNG") and len(content) > 10_000

    def test_step_sizes_that_were_tried_are_labelled(self, finished: Path, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        drawn = {}
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: drawn.update({path.stem: self}))
        design_ = plan(step_sizes=[0.5, 2])
        results = [read_result(run, finished / "runs" / run.folder) for run in design_.runs]
        draw_figures(tmp_path, results, design_)
        (axes,) = drawn["step_size"].axes
        assert [label.get_text() for label in axes.get_xticklabels(which="both")] == ["0.5", "2"]
        labels = [text.get_text() for text in drawn["learning_curves"].legends[0].get_texts()]
        assert labels[0].startswith("spigot step_size=")
        # Accuracies are never below 0, and neither are their error bars.
        low = min(
            point[1] for line in drawn["learning_curves"].axes[0].collections for point in line.get_paths()[0].vertices
        )
        assert low >= 0

    def test_figures_of_an_earlier_command_are_removed(self, tmp_path):
        (tmp_path / "latent_structure.png").touch()
        draw_figures(tmp_path, [], plan(step_sizes=[0.5, 2]))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("values", "bounds"),
        [
            ([0.0, 0.0, 0.6], (0.0, 0.546)),
            ([1.0, 1.0, 0.4], (0.454, 1.0)),
            ([3.0, 5.0], (2.586, 5.414)),
            ([-1.0], (-1, -1)),
        ],
    )
    def test_bars_stay_where_values_can_be(self, values, bounds):
        assert _bounds(values) == pytest.approx(bounds, abs=1e-3)

    def test_unknown_metric_of_a_figure(self, finished: Path):
        pytest.importorskip("matplotlib")
        with pytest.raises(
            ConfigurationError, match="no run has the validation metric 'uas'; valid: accuracy, loss, v_m"
        ):
            study(plan(step_sizes=[0.5, 2]), finished, executor="forked", latent_metric="uas")

    def test_archives_can_be_used_and_checkpoints_are_gone(self, finished: Path):
        for run in (finished / "runs").iterdir():
            assert (run / "training" / "model.tar.gz").exists() and not list((run / "training").glob("*.th"))


@pytest.fixture
def no_figures(monkeypatch):
    """They take longer than the runs."""
    monkeypatch.setattr("spigot_allennlp.commands.study.command.draw_figures", lambda *args: [])


@pytest.mark.usefixtures("no_figures")
class TestAgain:
    def test_what_is_finished_is_not_run_again(self, finished: Path, capsys):
        before = written(finished)
        assert study(plan(step_sizes=[0.5, 2], seeds=[1]), finished, executor="forked") == []
        assert written(finished) == before
        assert "3 of 3 runs were finished before" in capsys.readouterr().out
        assert {row["seed"] for row in rows(finished)} == {"1"}

    def test_more_estimators_can_be_added(self, finished: Path, tmp_path):
        before = written(finished)
        assert study(plan(estimators=["spigot", "ste"], step_sizes=[0.5], seeds=[1]), finished, executor="forked") == []
        after = written(finished)
        assert before.items() <= after.items() and len({Path(path).parent for path in after}) == 9

    @pytest.mark.parametrize(
        "changed, estimator, message",
        [
            ({"trainer.num_epochs": 4}, "spigot", r"config 'base' differs in trainer\.num_epochs \(3 then, 4 now\)"),
            ({"trainer.patience": 4}, "spigot", r"trainer\.patience \(nothing then, 4 now\)"),
            ({}, "ste_marginals", r"model\.estimator.*\"spigot\".* then, .*\"ste_marginals\".* now"),
        ],
    )
    def test_folder_of_another_config(self, finished: Path, monkeypatch, changed, estimator, message):
        before = written(finished)
        monkeypatch.setenv("SPIGOT_ESTIMATOR", estimator)
        with pytest.raises(ConfigurationError, match=message):
            study(plan({**TINY, **changed}), finished, executor="forked")
        assert written(finished) == before

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(ConfigurationError, match="is not empty, and not the folder of a study"):
            study(plan(), tmp_path, executor="forked")

    def test_folder_of_a_run_that_was_changed(self, finished: Path):
        design_ = plan(estimators=["marginals"], seeds=[1])
        path = finished / "runs" / design_.runs[0].folder / "params.json"
        original = path.read_text()
        path.write_text(original.replace('"pytorch_seed": 1', '"pytorch_seed": 5'))
        with pytest.raises(ConfigurationError, match=r"of another run: it differs in pytorch_seed \(5 then, 1 now\)"):
            study(design_, finished, executor="forked")
        path.write_text(original)

    def test_folder_in_use(self, tmp_path):
        with FileLock(str(tmp_path / ".lock")):
            with pytest.raises(ConfigurationError, match="another study is at work"):
                study(plan(), tmp_path, executor="forked")


@pytest.mark.usefixtures("no_figures")
class TestFaults:
    def test_killed_and_resumed(self, tmp_path, monkeypatch):
        """In the second run's second epoch, by SIGKILL: the same table as without."""
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        design_ = plan()
        assert study(design_, whole, executor="forked") == []
        first, second = (killed / "runs" / run.folder for run in design_.runs[:2])
        process = os.fork()
        if not process:  # pragma: no cover
            os.environ[KILL] = f"{second.name} 1"
            study(design_, killed, workers=1, executor="forked")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        # The run's process does not outlive the study.
        with FileLock(str(second / ".lock"), timeout=20):
            assert read_state(first)["finished"] and not read_state(second)["finished"]
        before = written(first.parent.parent)
        assert study(design_, killed, executor="forked") == []
        after = written(killed)
        assert {path for path in before if before[path] == after[path]} >= {
            path for path in before if first.name in path
        }
        # The epoch that had no checkpoint was trained again, the one before it was not.
        assert read_state(second) == {"first_epochs": [0, 1], "finished": True}
        unchanged = {Path(path).name for path in before if second.name in path and before[path] == after[path]}
        assert "metrics_epoch_0.json" in unchanged and "metrics_epoch_1.json" not in unchanged
        assert without_times(rows(killed)) == without_times(rows(whole))
        assert (killed / "summary.md").read_text() == (whole / "summary.md").read_text()

    def test_damaged_metrics(self, tmp_path, monkeypatch):
        """Of an interrupted run, whose table is the same in the end."""
        whole, damaged = tmp_path / "whole", tmp_path / "damaged"
        design_ = plan(estimators=["spigot"], seeds=[1])
        assert study(design_, whole, executor="forked") == []
        folder = damaged / "runs" / design_.runs[0].folder
        process = os.fork()
        if not process:  # pragma: no cover
            os.environ[KILL] = f"{folder.name} 2"
            study(design_, damaged, workers=1, executor="forked")
            os._exit(0)
        os.waitpid(process, 0)
        # As a power failure may leave the file of an epoch that has a checkpoint.
        path = folder / "training" / "metrics_epoch_0.json"
        with FileLock(str(folder / ".lock"), timeout=20):
            path.write_text(path.read_text()[:20])
        assert read_result(design_.runs[0], folder).epochs[0]["epoch"] == 1
        assert study(design_, damaged, executor="forked") == []
        assert read_state(folder) == {"first_epochs": [0], "finished": True}
        assert without_times(rows(damaged)) == without_times(rows(whole))

    @pytest.mark.parametrize("name", ["latent_metric", "downstream_metric"])
    def test_unknown_metric(self, tmp_path, name: str):
        """Refused when one run of each config has told its metrics: before the others are trained."""
        design_ = plan(baselines=[str(CLUSTERS / "none.jsonnet")])
        with pytest.raises(ConfigurationError, match="metric 'vmeasure'; valid: accuracy, loss, v_measure"):
            study(design_, tmp_path, workers=1, executor="forked", **{name: "vmeasure"})
        begun = {run.name for run in design_.runs if (tmp_path / "runs" / run.folder / "training").exists()}
        assert begun == {"spigot", "none"} and len(list(tmp_path.glob("runs/*/training"))) == 2

    def test_a_metric_of_a_baseline_alone(self, tmp_path):
        design_ = plan(base="none", estimators=[], seeds=[1], baselines=[str(CLUSTERS / "latent.jsonnet")])
        assert study(design_, tmp_path, workers=1, executor="forked", latent_metric="v_measure") == []

    def test_a_run_that_fails(self, tmp_path, capsys):
        """The others are trained; it is named, with the end of its log, and can be tried again."""
        design_ = plan(seeds=[1], baselines=[str(CLUSTERS / "gold.jsonnet")])
        broken = design_.runs[-1]
        directory = tmp_path / "study"
        folder = directory / "runs" / broken.folder
        # As if somebody else were training it.
        folder.mkdir(parents=True)
        (folder / "training").write_text("")
        (directory / "study.json").write_text("{}")
        assert study(design_, directory, executor="forked") == [str(folder)]
        output = capsys.readouterr().out
        assert "gold seed=1: FAILED, exit status 1; the end of" in output and "NotADirectoryError" in output
        assert {row["name"] for row in rows(directory)} == {"spigot", "marginals"}
        assert f"- gold seed=1 (`runs/{folder.name}`)" in (directory / "summary.md").read_text()
        (folder / "training").unlink()
        assert study(design_, directory, executor="forked") == []
        assert {row["name"] for row in rows(directory)} == {"spigot", "marginals", "gold"}


REAL = {key: value for key, value in TINY.items() if key != "trainer.callbacks"}
PROGRAM = [sys.executable, "-m", "spigot_allennlp"]


def arguments(directory: Path, overrides: Dict[str, Any], *more: str) -> List[str]:
    config = str(CLUSTERS / "latent.jsonnet")
    return ["study", config, "-s", str(directory), "-o", json.dumps(overrides), *more]


class TestCommand:
    def test_real_processes_in_a_directory_without_plugins(self, tmp_path):
        more = ["--estimators", "ste", "--seeds", "1", "--include-package", "spigot_allennlp"]
        done = command(tmp_path, *arguments(Path("results"), REAL, *more), program=PROGRAM)
        assert done.returncode == 0, done.output
        assert "[1/1] ste seed=1: validation accuracy 0." in done.output
        (run,) = (tmp_path / "results" / "runs").iterdir()
        assert "Uncaught" not in (run / "log.txt").read_text() and len(rows(tmp_path / "results")) == NUM_EPOCHS

    def test_error_before_anything_is_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["allennlp", *arguments(tmp_path / "results", {}, "--estimators", "spigto")])
        with pytest.raises(SystemExit, match="^error: unknown estimator 'spigto'; valid: blackbox, .*"):
            allennlp.commands.main()
        assert not (tmp_path / "results").exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        for path, problem in {tmp_path / "file": "File exists", tmp_path / "file" / "x": "Not a directory"}.items():
            monkeypatch.setattr(sys, "argv", ["allennlp", *arguments(path, {})])
            with pytest.raises(SystemExit, match=f"^error: {path}: {problem}$"):
                allennlp.commands.main()

    @pytest.mark.slow
    def test_killed_again_and_again(self, tmp_path):
        """By SIGKILL and SIGTERM at random moments, with real processes: the same table as without."""
        overrides = {**REAL, "trainer.num_epochs": 40, "data_loader.batches_per_epoch": 50}
        more = ["--estimators", "spigot", "gumbel_softmax", "--seeds", "1", "2"]
        whole = command(tmp_path, *arguments(Path("whole"), overrides, *more), program=PROGRAM)
        assert whole.returncode == 0, whole.output
        moments = random.Random(0)
        for number in range(8):
            with open(tmp_path / "killed.txt", "a") as output:
                process = subprocess.Popen(
                    [*PROGRAM, *arguments(Path("killed"), overrides, *more)],
                    cwd=tmp_path,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                time.sleep(moments.uniform(8, 40))
                process.send_signal(signal.SIGTERM if number % 3 == 2 else signal.SIGKILL)
                process.wait()
        killed = command(tmp_path, *arguments(Path("killed"), overrides, *more), program=PROGRAM)
        assert killed.returncode == 0, killed.output + (tmp_path / "killed.txt").read_text()
        assert without_times(rows(tmp_path / "killed")) == without_times(rows(tmp_path / "whole"))

    @pytest.mark.slow
    def test_ray_with_two_workers(self, tmp_path):
        """On a cluster of two nodes with a core each: the same table as on this machine."""
        ray = pytest.importorskip("ray")
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        design_ = plan(REAL)
        assert study(design_, tmp_path / "local", executor="forked") == []
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            cluster.add_node(num_cpus=1)
            ray.init(address=cluster.address, log_to_driver=False)
            assert study(design_, tmp_path / "ray", executor="ray") == []
        finally:
            ray.shutdown()
            cluster.shutdown()
        assert without_times(rows(tmp_path / "ray")) == without_times(rows(tmp_path / "local"))
