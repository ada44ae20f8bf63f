"""The floors of docs/architecture.md: whatever is imported lies on a lower floor."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Tuple

import pytest

from tests.conftest import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "spigot_allennlp"
FLOORS = (
    {"checks", "config_keys", "files", "external_variables", "pretrained", "version"},
    {"functional", "data", "patches"},
    {"structures", "metrics", "dataset_readers"},
    {"estimators", "modules", "predictors", "visualization"},
    {"models", "parser"},
    {"training", "commands", "spacy_component"},
)


def imports() -> Iterator[Tuple[Path, str, str]]:
    """Each file, its part of the package, and a part that it imports."""
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
                if modules == ["spigot_allennlp"]:
                    modules = [f"spigot_allennlp.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            for module in modules:
                package, _, imported = module.partition(".")
                imported = imported.partition(".")[0]
                if package == "spigot_allennlp" and imported and imported != part:
                    yield path, part, imported


def test_imports_go_down():
    floors = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    found = [found for found in imports() if found[1] not in ("__init__", "__main__")]
    assert len(found) > 100
    for path, part, imported in found:
        for name in (part, imported):
            assert name in floors, f"{path}: put '{name}' on a floor, here and in docs/architecture.md"
        assert floors[imported] < floors[part], f"{path} imports '{imported}', which is not below '{part}'"


@pytest.mark.parametrize("part", sorted(set().union(*FLOORS)))
def test_every_part_is_on_the_page(part: str):
    assert f"`{part}`" in (PROJECT_ROOT / "docs" / "architecture.md").read_text()
