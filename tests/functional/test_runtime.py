import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
from numba.core.registry import CPUDispatcher

from spigot_allennlp import functional
from spigot_allennlp.functional import runtime

ONE = 1


def kernels() -> Dict[str, CPUDispatcher]:
    """Every kernel of the package by its full name."""
    found = {}
    for info in pkgutil.walk_packages(functional.__path__, functional.__name__ + "."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, CPUDispatcher) and value.py_func.__module__ == info.name:
                found[f"{info.name}.{name}"] = value
    return found


def inputs_of(kernel: CPUDispatcher) -> Dict[str, bytes]:
    found: Dict[str, bytes] = {}
    runtime._add_inputs(kernel.py_func, found)
    return found


def test_every_kernel_is_cached_under_all_that_is_compiled_into_it():
    found = kernels()
    assert len(found) > 50
    for name, kernel in found.items():
        for callee in inputs_of(kernel):
            module, _, attribute = callee.rpartition(".")
            value = getattr(sys.modules.get(module), attribute, None)
            if isinstance(value, CPUDispatcher):
                # What a callee is made of, its callers are.
                assert inputs_of(value).keys() <= inputs_of(kernel).keys(), (name, callee)
    inputs = inputs_of(found["spigot_allennlp.functional.sparsemap.trees._project_trees"])
    files = set(inputs.values())
    for module in ("lanes", "projective.argmax", "nonprojective.maximum", "sparsemap.active_set"):
        assert Path(sys.modules[f"{functional.__name__}.{module}"].__file__).read_bytes() in files, module
    assert repr(runtime.FORBIDDEN).encode() in files
    # Where nothing is compiled into it, an edit recompiles nothing.
    for module in ("routes", "trees", "projective.charts", "nonprojective.sums", "projective.inside_outside"):
        assert Path(sys.modules[f"{functional.__name__}.{module}"].__file__).read_bytes() not in files, module


PLUGIN = """
from spigot_allennlp.functional import runtime
from plugin import helper
from plugin.helper import OFFSET, double


@runtime.kernel
def by_name(x):
    return double(x) + OFFSET


@runtime.kernel
def by_module(x):
    return helper.double(x) + helper.OFFSET


print(by_name(1), by_module(1))
"""
HELPER = """
from spigot_allennlp.functional.runtime import kernel

OFFSET = {offset}


@kernel
def double(x):
    return {factor} * x
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "kernels.py").write_text(PLUGIN)
    (folder / "helper.py").write_text(HELPER.format(offset=10, factor=2))
    return folder


def test_kernels_of_a_plugin_notice_edits_in_other_files(plugin: Path):
    """Without the fingerprint, numba would go on using what it has cached for `kernels.py`, which nobody has edited."""

    def run() -> list:
        command = [sys.executable, "-m", "plugin.kernels"]
        finished = subprocess.run(command, cwd=plugin.parent, capture_output=True, text=True, check=True)
        return finished.stdout.split()

    # Compiled, and from the cache.
    assert run() == run() == ["12", "12"]
    (plugin / "helper.py").write_text(HELPER.format(offset=100, factor=2))
    assert run() == ["102", "102"]
    (plugin / "helper.py").write_text(HELPER.format(offset=100, factor=3))
    assert run() == ["103", "103"]


def test_a_kernel_that_uses_what_is_not_defined_yet_is_refused():
    def early(x):
        return late_kernel(x) + ONE  # noqa: F821

    with pytest.raises(NameError, match="early.*late_kernel.*not defined yet"):
        runtime.kernel(early)


def test_constants_and_options_are_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch):
    def function(x):
        return x + ONE

    def fingerprint(**options) -> str:
        return runtime._fingerprint(function, options)

    first = fingerprint(fastmath=True)
    assert fingerprint(fastmath=True) == first != fingerprint(fastmath=False)
    for value in (2, 2.0, np.uint64(2), np.arange(2)):
        monkeypatch.setitem(globals(), "ONE", value)
        assert fingerprint(fastmath=True) != first


def test_a_kernel_without_a_cache(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Where no directory can be written: package, home, NUMBA_CACHE_DIR."""

    def no_directory(_: CPUDispatcher) -> None:
        raise RuntimeError("cannot cache function 'twice': no locator available for file 'kernels.py'")

    def twice(x: float) -> float:
        return 2 * x

    monkeypatch.setattr(CPUDispatcher, "enable_caching", no_directory)
    runtime._warn_of_no_cache.cache_clear()
    assert [runtime.kernel(twice)(number) for number in (1.0, 2.0)] == [2.0, 4.0]
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1
