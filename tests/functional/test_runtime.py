import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Iterator, Tuple

from numba.core.registry import CPUDispatcher

from spigot_allennlp import functional
from spigot_allennlp.functional import runtime


def modules_with_kernels() -> Iterator[Tuple[ModuleType, set]]:
    """With all names that the kernels of each use."""
    for info in pkgutil.iter_modules(functional.__path__):
        module = importlib.import_module(f"{functional.__name__}.{info.name}")
        kernels = [value for value in vars(module).values() if isinstance(value, CPUDispatcher)]
        kernels = [kernel for kernel in kernels if kernel.py_func.__module__ == module.__name__]
        if kernels:
            yield module, {name for kernel in kernels for name in kernel.py_func.__code__.co_names}


def imported_from(module: ModuleType, names: set) -> Iterator[str]:
    """The modules of the package that `module` has them from."""
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("spigot_allennlp"):
            for alias in node.names:
                if (alias.asname or alias.name) in names:
                    of_a_module = isinstance(vars(module)[alias.asname or alias.name], ModuleType)
                    yield f"{node.module}.{alias.name}" if of_a_module else node.module


def test_kernels_are_cached_under_all_that_is_compiled_into_them():
    found = set()
    for module, names in modules_with_kernels():
        found |= {module.__name__, *imported_from(module, names)}
    assert {f"{functional.__name__}.{name}" for name in ("_lanes", "_eisner_kernels", "runtime")} <= found
    sources = {f"{functional.__name__}.{path.stem}" for path in runtime._SOURCES}
    assert found <= sources
    # Where there are no kernels, an edit recompiles none.
    assert not sources & {f"{functional.__name__}.{name}" for name in ("routes", "trees", "eisner", "spanning_tree")}
