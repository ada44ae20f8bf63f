"""
The pages as their readers use them: every command is one that AllenNLP's parser takes, with configs that load; the
tutorial and the programs run; the slow tests run every page from its first command to its last.
"""

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional

import allennlp.commands
import pytest
from allennlp.common import Params
from allennlp.common.params import parse_overrides
from allennlp.common.plugins import import_plugins
from allennlp.common.util import import_module_and_submodules

from spigot_allennlp.commands.study.design import design, read_description
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.external_variables import DEFAULTS
from spigot_allennlp.structures import LatentStructure
from tests.conftest import FIXTURES, PROJECT_ROOT
from tests.docs.pages import PAGES, Command, blocks, commands
from tests.running import forked_command

# Commands that no test runs, by how they begin, and why. That they can be run is checked as far as it can be.
NOT_RUN = {
    "source .venv/bin/activate": "it is for the reader's shell",
    "make": "it sets up the environment that the tests run in; what it runs then is run by other tests",
    "python scripts/fetch_pretrained.py": "it downloads",
    "allennlp train training_configs/universal_dependencies/transformer.jsonnet": "it needs a transformer",
    "python scripts/pack_parser.py": "the tests of docs run where no script is",
    "pip install": "it would change the environment of the tests",
    ".venv/bin/pip install": "it would change the environment of the tests",
    "echo ": "it writes an input of the reader's own",
    "uv ": "it would change the environment of the tests",
    "pip wheel": "tests/test_package.py builds the wheel",
    "python scripts/pip_install.py": "it would change the environment of the tests",
    "python scripts/allennlp_wheel.py": "it downloads; tests/test_package.py edits a wheel",
    "allennlp quickstart": "tests/test_package.py runs it from a wheel",
    "python benchmarks/": "it takes hours, and a GPU; tests/test_benchmarks.py has its parts",
    ".venv/bin/python benchmarks/": "it takes hours; tests/test_benchmarks.py has its parts",
    "python -m pytest": "tests would run themselves",
    "python docs/examples/optuna_search.py": "tests/commands/test_habits.py runs it",
    "allennlp train config.jsonnet -s runs/first": "it waits for another machine; tests/training has two",
    "allennlp train config.jsonnet -s runs/second": "it waits for another machine; tests/training has two",
    "allennlp train training_configs/sentiment/transformer.jsonnet": "it downloads; tests/models/"
    "test_pretrained_input.py trains it from a folder",
    ".venv/bin/allennlp study": "dozens of runs; the same command is in docs/how-to/study.md",
}
# Whose programs are run. Those of other pages are excerpts.
PROGRAMS = ["README.md", "docs/tutorial.md", "docs/python.md", "docs/extending/structure.md"]
# What stands for the reader's own files.
OWN_FILES = re.compile(
    r"(train|dev|test)\.(conllu|txt)|snli_(train|dev)\.jsonl|glove\.txt|sentences\.txt|config\.jsonnet"
)
OWN_FOLDERS = ("fixtures", "training_configs", "docs", "benchmarks", "scripts", "tests", "requirements", ".venv")

# Once for all commands, as walking through the packages takes time.
ONCE = [lru_cache(None)(function) for function in (import_plugins, import_module_and_submodules)]


def reason_not_to_run(command: Command) -> Optional[str]:
    return next((reason for start, reason in NOT_RUN.items() if str(command).startswith(start)), None)


@pytest.fixture
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)
    for function in ONCE:
        monkeypatch.setattr(allennlp.commands, function.__name__, function)


def parse(command: Command, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setattr(sys, "argv", ["allennlp", *command.arguments])
    try:
        return allennlp.commands.parse_args("allennlp")[1]
    except SystemExit:
        pytest.fail(f"allennlp does not take these arguments: {command}")


ALL = [
    pytest.param(command, id=f"{page}:{block.line}:{number}")
    for page in PAGES
    for block in blocks(page)
    for number, command in enumerate(commands(block))
]


@pytest.mark.parametrize("command", ALL)
def test_command_is_valid(command: Command, in_the_repository, monkeypatch: pytest.MonkeyPatch):
    for word in command.words[1:]:
        if word.split("/")[0] in OWN_FOLDERS and "/" in word and " " not in word:
            assert (PROJECT_ROOT / word).exists(), word
    for name, value in command.variables.items():
        # The companion's default depends on the data (spigot_allennlp/external_variables.py).
        assert name in {*DEFAULTS, "SPIGOT_SDP_COMPANION"}
        monkeypatch.setenv(name, value)
    if command.words[0] == "make":
        assert re.search(rf"^{command.words[1]}:", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE)
    if not command.is_allennlp:
        assert command.words[0] in ("allennlp", "python", "source") or reason_not_to_run(command)
        return
    arguments = parse(command, monkeypatch)
    for name in ("predictor_args", "gold_reader"):
        json.loads(getattr(arguments, name, None) or "{}")
    config = getattr(arguments, "param_path", None)
    if config is None or OWN_FILES.fullmatch(config):
        return
    if command.arguments[0] == "study":
        names = ("estimators", "baselines", "step_sizes", "num_steps", "learning_rates", "seeds")
        description = read_description(arguments.grid, {name: getattr(arguments, name) for name in names})
        assert design(config, description, arguments.overrides).runs
    else:
        assert "model" in Params.from_file(config, arguments.overrides)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    text = (PROJECT_ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (PROJECT_ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize(
    "page, registry",
    [
        ("docs/estimators.md", Estimator),
        ("docs/monograph.md", Estimator),
        ("docs/monograph.md", LatentStructure),
    ],
)
def test_tables_name_what_is_registered(page: str, registry):
    text = (PROJECT_ROOT / page).read_text(encoding="utf-8")
    ours = [
        name for name in registry.list_available() if registry.by_name(name).__module__.startswith("spigot_allennlp.")
    ]
    # `pipeline` is a baseline without a gradient.
    missing = [name for name in ours if f"`{name}`" not in text and name != "pipeline"]
    assert not missing, f"add rows for {missing} to {page}"


# --------------------------------------------------------------------------------------------- pages that are run


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory like the repository's, with files in place of the reader's own."""
    for name in ("fixtures", "training_configs", "docs", "benchmarks", ".allennlp_plugins"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    (tmp_path / "runs").mkdir()
    for variable, value in DEFAULTS.items():
        monkeypatch.setenv(variable, value)

    def take(source: str, target: str, number: int, separator: str = "\n") -> None:
        parts = (FIXTURES / source).read_text(encoding="utf-8").split(separator)[:number]
        (tmp_path / target).write_text(separator.join(parts) + separator, encoding="utf-8")

    take("graphs/train.conllu", "train.conllu", 40, "\n\n")
    take("graphs/dev.conllu", "dev.conllu", 10, "\n\n")
    for part in ("train", "dev"):
        take(f"sst/{part}.txt", f"{part}.txt", 40)
        take(f"snli/{part}.jsonl", f"snli_{part}.jsonl", 20)
    take("vectors/vectors.txt", "glove.txt", 10_000)
    take("text/sentences.txt", "sentences.txt", 5)
    (tmp_path / "model.tar.gz").symlink_to(FIXTURES / "models" / "semantic_parser.tar.gz")
    (tmp_path / "config.jsonnet").write_text("import 'training_configs/syntactic_then_semantic/spigot.jsonnet'")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shorten(arguments: List[str]) -> List[str]:
    """One epoch, and of a study one seed and one step size; the rest as it is."""
    short: Dict[str, Any] = {"trainer.num_epochs": 1}
    if "clusters/" in arguments[1]:
        short["data_loader.batches_per_epoch"] = 2
    if "peng_2018" in arguments[1]:
        # Not sentences one by one.
        short["data_loader.scheduler.batch_size"] = 16
    arguments = list(arguments)
    if "-o" in arguments:
        place = arguments.index("-o") + 1
        given = parse_overrides(arguments[place])
        assert all(isinstance(key, str) for key in given)
        arguments[place] = json.dumps({**given, **short})
    else:
        arguments += ["-o", json.dumps(short)]
    for flag in ("--seeds", "--step-sizes"):
        if flag in arguments:
            place = arguments.index(flag) + 2
            while place < len(arguments) and not arguments[place].startswith("-"):
                del arguments[place]
    return arguments


def run_page(page: str, sandbox: Path, short: bool) -> None:
    """Its commands in order, and its programs between them in one interpreter."""
    names: Dict[str, Any] = {}
    for block in blocks(page):
        where = f"{page}, line {block.line}"
        if block.language == "python" and page in PROGRAMS:
            exec(compile(block.text, where, "exec"), names)
        for command in commands(block):
            if reason_not_to_run(command):
                continue
            if command.is_allennlp:
                arguments = command.arguments
                if short and arguments[0] in ("train", "study"):
                    arguments = shorten(arguments)
                done = forked_command(sandbox, *arguments, **command.variables)
                assert done.returncode == 0, f"{where}: {command}\n{done.output}"
            else:
                environment = {**os.environ, **command.variables, "PYTHONPATH": str(PROJECT_ROOT)}
                ran = subprocess.run(
                    [sys.executable, *command.words[1:]], env=environment, capture_output=True, text=True
                )
                assert ran.returncode == 0, f"{where}: {command}\n{ran.stderr}"


@pytest.mark.parametrize("data", ["small", pytest.param("whole", marks=pytest.mark.slow)])
def test_the_tutorial(data: str, sandbox: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    if data == "small":
        monkeypatch.setenv("SPIGOT_TRAIN_DATA", "train.conllu")
        monkeypatch.setenv("SPIGOT_VALIDATION_DATA", "dev.conllu")
    run_page("docs/tutorial.md", sandbox, short=False)
    assert re.search(r"cook <- \w+", capsys.readouterr().out)
    metrics = json.loads((sandbox / "runs" / "tutorial" / "metrics.json").read_text())
    assert metrics["best_validation_uas"] > {"small": 0.1, "whole": 0.7}[data]
    assert "training__arcs_changed" in metrics
    for page in ("drawing", "report"):
        assert "<svg" in (sandbox / "runs" / f"{page}.html").read_text()
    config = json.loads((sandbox / "runs" / "latent" / "config.json").read_text())
    assert config["model"]["structure"] == "nonprojective_tree"


@pytest.mark.parametrize("page", [page for page in PROGRAMS if page != "docs/tutorial.md"])
def test_programs(page: str, sandbox: Path):
    names: Dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
    assert names


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page != "docs/tutorial.md" and any(list(commands(block)) for block in blocks(page))],
)
def test_page_runs(page: str, sandbox: Path):
    run_page(page, sandbox, short=True)


# ------------------------------------------------------------------------------------------------------- the site


def test_the_site_is_built_and_needs_nothing_from_outside(tmp_path: Path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=PROJECT_ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    assert "not included in the" not in done.stdout, "a page is missing in nav"
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]*src=\"?(?:https?:)?//", text), page
        assert not re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*href=\"?(?:https?:)?//", text), page
        # Links to pages are checked by mkdocs, links to other files are not. (404.html is for a server.)
        for target in re.findall(r"<a [^>]*href=\"?([^\"#?>\s]+)", text) if page.name != "404.html" else ():
            assert ":" in target or (page.parent / target).exists(), f"{page}: {target}"
    estimators = (tmp_path / "site" / "api" / "estimators.html").read_text(encoding="utf-8")
    assert "Peng, Thomson" in estimators and 'id="spigot_allennlp.estimators.Spigot"' in estimators
