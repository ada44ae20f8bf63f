"""
What a user meets first: importing the package, with and without what it needs, and AllenNLP finding it.
"""

import configparser
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Dict, Iterable, List, Set
from zipfile import ZipFile

import pytest
import torch
import transformers
from allennlp.training.optimizers import Optimizer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import spigot_allennlp
from tests.conftest import FIXTURES, PROJECT_ROOT

ALLENNLP = str(Path(sys.executable).with_name("allennlp"))


def run_python(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def requirement_lines(lines: Iterable[str]) -> List[str]:
    return [line for line in lines if line and not line.startswith("#")]


def constraints() -> List[str]:
    return requirement_lines((PROJECT_ROOT / "requirements" / "constraints.txt").read_text().splitlines())


def pins() -> Dict[str, Requirement]:
    """The tested versions for this Python, by the name of the package."""
    requirements = [Requirement(line) for line in constraints()]
    return {canonicalize_name(r.name): r for r in requirements if r.marker is None or r.marker.evaluate()}


def install_requires(*extras: str) -> Dict[str, Requirement]:
    setup = configparser.ConfigParser()
    setup.read(PROJECT_ROOT / "setup.cfg")
    values = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)]
    requirements = [Requirement(line) for value in values for line in requirement_lines(value.splitlines())]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def files(folder: Path) -> Set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_version():
    assert spigot_allennlp.__version__ == importlib.metadata.version("spigot-allennlp")


BLOCK = """
import sys
from importlib.machinery import PathFinder

class Blocker(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Blocker
import spigot_allennlp
"""


def test_import_without_allennlp_says_what_to_run():
    result = run_python(BLOCK.format(blocked={"allennlp"}))
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    message = result.stderr[result.stderr.index("ImportError: ") :]
    assert "AllenNLP 2.10.1, which is not installed" in message and "python scripts/pip_install.py ." in message


WITHOUT = """
import sys, importlib.util
{before}
for name in ("torchvision", "fairscale"):
    assert importlib.util.find_spec(name) is None, name
import spigot_allennlp
from allennlp.common.checks import ConfigurationError
from allennlp.data.image_loader import TorchImageLoader
from allennlp.modules.vision import GridEmbedder
from allennlp.nn.checkpoint import CheckpointWrapper, FairScaleCheckpointWrapper
for use in (
    lambda: TorchImageLoader(image_backend="pil"),
    lambda: GridEmbedder.by_name("resnet_backbone")(),
    lambda: FairScaleCheckpointWrapper().wrap_module(None),
):
    try:
        use()
    except ImportError as error:
        print(error)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("torchvision", "fairscale")))
"""


def test_allennlp_works_without_torchvision_and_fairscale_and_says_so_where_it_would_use_them():
    """And no other package is made to believe that they are installed."""
    hide = BLOCK.format(blocked={"torchvision", "fairscale"}).replace("import spigot_allennlp\n", "")
    result = run_python(WITHOUT.format(before=hide))
    assert result.returncode == 0, result.stderr
    *messages, left = result.stdout.splitlines()
    for message, package in zip(messages, ("torchvision", "torchvision", "fairscale"), strict=True):
        assert f"needs {package}" in message and f"pip install {package}" in message
    assert left == "[]"


def test_a_torchvision_of_another_torch_is_refused_with_the_way_out(tmp_path: Path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import allennlp.data.image_loader"
    message = run_python(code).stderr.splitlines()[-1]
    assert "operator torchvision::nms does not exist" in message and "pip uninstall torchvision" in message


def test_an_optimizer_of_transformers_that_is_gone_is_torchs(monkeypatch: pytest.MonkeyPatch):
    """transformers 4.51 removed its AdamW, from which AllenNLP's optimizer `huggingface_adamw` inherits."""
    name = "allennlp.training.optimizers"
    later = ModuleType("transformers")
    later.Adafactor = transformers.Adafactor
    monkeypatch.setitem(sys.modules, "transformers", later)
    monkeypatch.setattr(Optimizer, "_registry", defaultdict(dict))
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = module.HuggingfaceAdamWOptimizer([("weight", parameter)], lr=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.item() == pytest.approx(0.9, abs=1e-5)
    with pytest.raises(ValueError, match="valid here: true"):
        module.HuggingfaceAdamWOptimizer([("weight", parameter)], correct_bias=False)
    assert not hasattr(later, "AdamW")


def test_importing_compiles_nothing():
    result = run_python(
        "import numba.core.event as event\n"
        "recorded = []\n"
        "class Listener(event.Listener):\n"
        "    def on_start(self, event): recorded.append(event.data)\n"
        "    def on_end(self, event): pass\n"
        "event.register('numba:compile', Listener())\n"
        "import spigot_allennlp\n"
        "print(len(recorded))"
    )
    assert result.stdout.split() == ["0"], result.stderr


@pytest.mark.parametrize("how", ["installed", "plugins file", "include-package"])
def test_allennlp_finds_the_package(how: str, tmp_path: Path):
    """With a command that knows our reader only if the package is loaded, and a terminal free of what is no news."""
    config = {
        "dataset_reader": {"type": "conllu_graphs"},
        "train_data_path": str(FIXTURES / "graphs" / "dev.conllu"),
        "data_loader": {"batch_size": 8},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [ALLENNLP, "count-instances", "config.json"]
    if how == "plugins file":
        (tmp_path / ".allennlp_plugins").write_text("spigot_allennlp\n")
    elif how == "include-package":
        command += ["--include-package", "spigot_allennlp"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "100 instances" in " ".join(result.stdout.split())
    assert not re.search("Warning|already been registered", result.stderr + result.stdout)


def test_every_dependency_has_a_tested_version_within_its_range():
    requirements = install_requires("dev")
    del requirements["allennlp"]
    assert len(requirements) > 20
    for name, requirement in requirements.items():
        (pin,) = pins()[name].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), requirement


def test_uv_resolves_the_tested_versions_within_the_ranges_of_the_package():
    text = (PROJECT_ROOT / "pyproject.toml").read_text()
    listed = {
        key: re.findall(r'^    "(.*)",$', re.search(rf"^{key} = \[$(.*?)^\]$", text, re.MULTILINE | re.DOTALL)[1], re.M)
        for key in ("override-dependencies", "constraint-dependencies")
    }
    assert listed["constraint-dependencies"] == [line.replace('"', "'") for line in constraints()]
    ranges = install_requires()
    overrides = [Requirement(line) for line in listed["override-dependencies"]]
    kept = {canonicalize_name(override.name): override for override in overrides if override.marker is None}
    assert len(kept) > 5
    for name, override in kept.items():
        assert override.specifier == ranges[name].specifier, "an override replaces the range in setup.cfg"


def test_a_wheel_has_the_startup_file_and_what_quickstart_copies(tmp_path: Path):
    build = f"import build_backend; print(build_backend.build_wheel({str(tmp_path)!r}))"
    source = tmp_path / "source"
    shutil.copytree(PROJECT_ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "tests"))
    environment = {**os.environ, "PYTHONPATH": str(source / "scripts")}
    built = subprocess.run([sys.executable, "-c", build], cwd=source, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = tmp_path.glob("*.whl")
    with ZipFile(path) as wheel:
        assert wheel.read("spigot_allennlp.pth") == b"import spigot_allennlp_startup\n"
        names = set(wheel.namelist())
        (record,) = (name for name in names if name.endswith("RECORD"))
        lines = wheel.read(record).decode().splitlines()
        wheel.extractall(tmp_path / "site-packages")
    assert {line.split(",")[0] for line in lines} == names
    assert {"spigot_allennlp_startup.py", "spigot_allennlp/py.typed"} <= names
    assert not any(name.startswith("tests") for name in names)
    # In a directory without the repository.
    command = [sys.executable, "-m", "spigot_allennlp", "quickstart", "project"]
    environment["PYTHONPATH"] = str(tmp_path / "site-packages")
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "allennlp train training_configs/" in result.stdout
    for folder in ("training_configs", "fixtures"):
        copied = {
            p.relative_to(tmp_path / "project") for p in (tmp_path / "project" / folder).rglob("*") if p.is_file()
        }
        assert copied == {p.relative_to(PROJECT_ROOT) for p in (PROJECT_ROOT / folder).rglob("*") if p.is_file()}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 1 and "exists already" in again.stderr
