"""What people who know AllenNLP reach for: its smaller commands, and callbacks that log, with our components."""

import json
import re
import runpy
import sys
import tarfile
from pathlib import Path
from typing import Any, Dict, List

import pytest
from tensorboardX.proto.event_pb2 import Event

from tests.conftest import PROJECT_ROOT
from tests.running import command, forked_command
from tests.training.small import configuration, write_corpus

PACKAGES = ["--include-package", "spigot_allennlp"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """That of a parser with whatever logs."""
    directory = tmp_path_factory.mktemp("config")
    callbacks = [{"type": "tensorboard", "summary_interval": 1}, {"type": "latent_diagnostics", "num_batches": 1}]
    estimator = {"type": "spigot", "step_size": 1.0}
    params = configuration(write_corpus(directory / "corpus.conllu"), estimator, trainer={"callbacks": callbacks})
    path = directory / "config.json"
    path.write_text(json.dumps(params))
    return path


def run(cwd: Path, *arguments: Any, **variables: Any) -> str:
    done = forked_command(cwd, *arguments, **variables)
    assert done.returncode == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory) -> Path:
    """Two epochs."""
    directory = tmp_path_factory.mktemp("trained")
    run(directory, "train", config, "-s", "run", *PACKAGES)
    return directory / "run"


def test_diff(trained, tmp_path):
    output = run(tmp_path, "diff", trained / "model_state_e1_b0.th", trained / "model_state_e2_b0.th")
    changed = [line for line in output.splitlines() if "!" in line]
    assert any("graph_head.labeler" in line for line in changed) and any("text_encoder" in line for line in changed)
    assert " estimator" not in output


def test_print_results(trained, tmp_path):
    keys = ["best_validation_labeled_f1", "training__estimator_gradient_cosine"]
    header, row = run(tmp_path, "print-results", trained.parent, "-k", *keys).splitlines()[-2:]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert header == ", ".join(["model_run", *keys])
    assert row == ", ".join([str(trained / "metrics.json"), *(str(metrics[key]) for key in keys)])


def test_build_vocab_and_train_with_it(config, trained, tmp_path):
    overrides = json.dumps({"vocabulary": {"min_count": {"tokens": 3}}, "trainer.num_epochs": 1})
    # A process of its own: there the parser knows its functions before the package is imported.
    output = command(tmp_path, "build-vocab", config, "vocab.tar.gz", "-o", overrides, *PACKAGES).output
    with tarfile.open(tmp_path / "vocab.tar.gz") as archive:
        words = archive.extractfile("tokens.txt").read().decode().split()
        assert "head_relations.txt" in archive.getnames() and "arc_relations.txt" in archive.getnames()
    assert "Anna" in words and "lovely" not in words
    (vocabulary,) = re.findall(r"^\{.*from_files.*\}$", output, re.MULTILINE)
    overrides = json.dumps({"vocabulary": json.loads(vocabulary), "trainer": {"num_epochs": 1, "callbacks": []}})
    run(tmp_path, "train", config, "-s", "run", "-o", overrides, *PACKAGES)
    assert (tmp_path / "run" / "vocabulary" / "tokens.txt").read_text().split() == words


def test_find_learning_rate(config, tmp_path):
    pytest.importorskip("matplotlib")
    run(tmp_path, "find-lr", config, "-s", "search", "--num-batches", 11, "--end-lr", 1, *PACKAGES)
    assert (tmp_path / "search" / "lr-losses.png").read_bytes().startswith(b"\x89PNG")


def test_cached_path(trained, tmp_path):
    archive = trained / "model.tar.gz"
    output = run(tmp_path, "cached-path", archive, "--extract-archive", "-d", "cache")
    extracted = tmp_path / output.splitlines()[-1]
    assert {"weights.th", "config.json", "vocabulary"} <= {path.name for path in extracted.iterdir()}


def scalars(directory: Path) -> Dict[str, List[float]]:
    """What TensorBoard reads: records of a length, its checksum, an event, its checksum."""
    found: Dict[str, List[float]] = {}
    for path in directory.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(value.simple_value)
            data = data[16 + length :]
    return found


def test_tensorboard(trained):
    logged = scalars(trained / "log" / "train")
    metrics = json.loads((trained / "metrics_epoch_1.json").read_text())
    # AllenNLP leaves out metrics with an underscore only from its bar.
    for name in ("labeled_f1", "tree_depth", "_estimator_gradient_cosine", "_estimator_entropy", "_pull_back_distance"):
        tag = next(tag for tag in logged if tag.endswith(f"/{name}"))
        assert metrics[f"training_{name}"] == pytest.approx(logged[tag][-1], abs=1e-4), name
    assert any("labeled_f1" in tag for tag in scalars(trained / "log" / "validation"))


def test_wandb(config, tmp_path):
    pytest.importorskip("wandb")
    callbacks = [{"type": "wandb", "project": "spigot", "summary_interval": 1}, "latent_diagnostics"]
    overrides = json.dumps({"trainer.callbacks": callbacks})
    run(tmp_path, "train", config, "-s", "run", "-o", overrides, *PACKAGES, WANDB_MODE="offline", WANDB_SILENT="true")
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    logged = log.read_bytes()
    for name in (b"_estimator_gradient_cosine", b"labeled_f1", b"spigot"):
        assert name in logged


def test_optuna(config, tmp_path, monkeypatch, capsys):
    """Two trials, then one more with what is known from them."""
    pytest.importorskip("optuna")
    example = PROJECT_ROOT / "docs" / "examples" / "optuna_search.py"
    overrides = json.dumps({"trainer.num_epochs": 1, "trainer.callbacks": [], "trainer.validation_metric": "+uas"})
    for trials in (2, 1):
        arguments = [config, tmp_path / "search", "--trials", trials, "-o", overrides]
        monkeypatch.setattr(sys, "argv", [str(example), *map(str, arguments)])
        runpy.run_path(str(example), run_name="__main__")
    output = capsys.readouterr().out
    assert "of 3, uas" in output
    best = json.loads(output[output.rindex("{") :])
    assert best.keys() == {"step_size", "dropout", "lr"}
    runs = [json.loads((tmp_path / "search" / f"trial{n}" / "config.json").read_text()) for n in range(3)]
    assert best["step_size"] in [run["model"]["estimator"]["step_size"] for run in runs]
    assert len({run["trainer"]["optimizer"]["lr"] for run in runs}) == 3


def test_silent_predictions(trained, tmp_path):
    """Nothing is logged, and there is no bar where there is no terminal."""
    (tmp_path / "input.txt").write_text("the dog barked\n")
    arguments = ["predict", trained / "model.tar.gz", "input.txt", "--output-file", "output.jsonl", "--silent"]
    output = run(tmp_path, *arguments, *PACKAGES)
    assert "INFO" not in output and "predicting" not in output
    assert (tmp_path / "output.jsonl").read_text().count("\n") == 1
