"""Whatever is registered is tested and described: each failure says what to add."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import List, Type

import pytest
from allennlp.common import Registrable

import tests.estimators
import tests.structures
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.structures import LatentStructure
from tests.conftest import PROJECT_ROOT
from tests.enumeration import CASES


def registered(kind: Type[Registrable]) -> List[str]:
    """The names of the package's own; other tests register more."""
    names = kind.list_available()
    return [name for name in names if kind.by_name(name).__module__.startswith("spigot_allennlp.")]


def test_classes(package, attribute: str) -> Iterator:
    """What the classes of a package's test files have as `attribute`."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.rpartition(".")[2].startswith("test_"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.startswith("Test") and hasattr(value, attribute):
                    yield getattr(value, attribute)


test_classes.__test__ = False


# `product` is built of another structure, in Python; tests/structures/test_product.py.
@pytest.mark.parametrize("name", [name for name in registered(LatentStructure) if name != "product"])
def test_structure(name: str):
    cases = [case for case in CASES.values() if case.params["type"] == name]
    assert cases, f"add a case for '{name}' to CASES in tests/enumeration.py"
    tested = [case.params["type"] for case in test_classes(tests.structures, "case")]
    assert name in tested, f"add tests/structures/test_{name}.py, with a class whose `case` is CASES['{name}']"
    page = PROJECT_ROOT / "docs" / "conventions.md"
    assert f"`{name}`" in page.read_text(), f"add '{name}' to the table of parts in {page}"


@pytest.mark.parametrize("name", registered(Estimator))
def test_estimator(name: str):
    tested = [params["type"] for params in test_classes(tests.estimators, "params")]
    assert name in tested, f"add a class to tests/estimators/ whose `params` have the type '{name}'"
    page = PROJECT_ROOT / "docs" / "estimators.md"
    assert f"`{name}`" in page.read_text(), f"add '{name}' to the table in {page}"
