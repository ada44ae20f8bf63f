"""
What a user meets first: importing the package, with and without what it needs, and AllenNLP finding it.
"""

import configparser
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import spigot_allennlp
from tests.conftest import FIXTURES, PROJECT_ROOT

ALLENNLP = str(Path(sys.executable).with_name("allennlp"))


def run_python(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def pins() -> Dict[str, Requirement]:
    """The lines of the requirement files that hold for this Python, by the name of the package."""
    requirements = {}
    for name in ("constraints", "allennlp"):
        for line in (PROJECT_ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate():
                    requirements[canonicalize_name(requirement.name)] = requirement
    return requirements


def test_version():
    assert spigot_allennlp.__version__ == importlib.metadata.version("spigot-allennlp")


BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise {error}

sys.meta_path.insert(0, Blocker())
import spigot_allennlp
"""


def test_import_without_allennlp_says_what_to_run():
    blocked = {"allennlp", "fairscale", "torchvision"}
    result = run_python(BLOCK.format(blocked=blocked, error="ModuleNotFoundError(f'No module named {name!r}')"))
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    message = result.stderr[result.stderr.index("ImportError: ") :]
    assert "No module named 'allennlp'" in message
    assert f"{sys.executable} -m pip install --no-deps allennlp==2.10.1 fairscale==0.4.13" in message
    assert "torchvision==0.15.2" in message
    # The same versions as the set-up installs.
    assert all(str(pins()[name]) in message for name in ("allennlp", "fairscale"))


def test_import_with_a_torchvision_of_another_torch_says_what_to_run():
    error = "RuntimeError('operator torchvision::nms does not exist')"
    result = run_python(BLOCK.format(blocked={"torchvision"}, error=error))
    message = result.stderr[result.stderr.index("ImportError: ") :]
    assert "operator torchvision::nms does not exist" in message
    assert "torchvision==0.15.2" in message and "allennlp==2.10.1" not in message


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


@pytest.mark.parametrize("how", ["plugins file", "include-package"])
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
    else:
        command += ["--include-package", "spigot_allennlp"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "100 instances" in " ".join(result.stdout.split())
    assert not re.search("Warning|already been registered", result.stderr + result.stdout)


def test_every_dependency_has_a_tested_version_within_its_range():
    setup = configparser.ConfigParser()
    setup.read(PROJECT_ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]
    requirements = [Requirement(line) for line in lines.splitlines() if line and not line.startswith("#")]
    assert len(requirements) > 20
    for requirement in requirements:
        (pin,) = pins()[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), requirement
