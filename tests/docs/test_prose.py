"""The language of the pages, and of the package's docstrings, comments and messages, as far as it can be checked."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import List, Tuple

import pytest

from tests.conftest import PROJECT_ROOT

PAGES = [
    *sorted((PROJECT_ROOT / "docs").rglob("*.md")),
    *(PROJECT_ROOT / name for name in ("README.md", "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
]
SOURCES = sorted((PROJECT_ROOT / "spigot_allennlp").rglob("*.py"))

# What not to write, and what to write for it. A space also stands for a line break.
PHRASES = {
    r"\bbehind\b": "after",
    r"\bbut for\b": "except",
    r"\bof no account\b": "ignored",
    r"(?<!there)(?<!\s) is no (?!longer|more|need|other|way|such|better)": "is not a",
    r"\b(?:that|who|which) (?:is|are) none\b": "that is not a ...",
    r"\bat hand\b": "available",
    r"\b(?:that|those) of\b": "a noun: 'the loss of a batch', or 'the batch's loss'",
    r"\bof (?:which|whom)\b": "'whose', or two sentences",
    r"\bmend(?:s|ed|ing)?\b": "patch",
    r"\bRaises an? `": "a section '# Errors'",
}
# How a description begins that is not a noun phrase.
FRAGMENT = re.compile(
    r"(?:Of|In|For|By|As|At|From|With|Before|After|Between|Behind|Or|Those|What|How|Where|Its|See|Whose|The same)\b"
)
WIDTH = 120


def where(path: Path, text: str, position: int) -> str:
    return f"{path.relative_to(PROJECT_ROOT)}:{text.count(chr(10), 0, position) + 1}"


def prose(page: str) -> str:
    """A page without its blocks of code, which leave empty lines."""
    return re.sub(r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), page, flags=re.M | re.S)


def phrases(path: Path, text: str) -> Iterator[str]:
    for phrase, better in PHRASES.items():
        for match in re.finditer(phrase.replace(" ", r"\s+(?:# )?"), text):
            yield f"{where(path, text, match.start())}: {' '.join(match[0].split())!r}; write {better}"


def wide_lines(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) >= WIDTH and not line.lstrip().startswith("|") and "://" not in line:
            yield f"{path.relative_to(PROJECT_ROOT)}:{number}: {len(line)} characters; write at most {WIDTH - 1}"


def public(node: ast.AST) -> Iterator[ast.AST]:
    """Classes and functions, and those inside of classes, whose names are public."""
    for child in getattr(node, "body", ()):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)) and not re.match(r"_(?!_)", child.name):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def parameters(docstring: str) -> List[Tuple[str, str]]:
    """Name and description of what a section `# Parameters` lists."""
    section = re.search(r"^# Parameters\n(.*?)(?=^# |\Z)", docstring, re.M | re.S)
    if section is None:
        return []
    entries = re.finditer(r"^(\w[\w, ]*) : `.*\n?((?:(?: {4}.*)?(?:\n|\Z))*)", section[1], re.M)
    return [(entry[1], " ".join(entry[2].split())) for entry in entries]


def undescribed_parameters(path: Path, text: str) -> Iterator[str]:
    for node in public(ast.parse(text)):
        for name, description in parameters(ast.get_docstring(node) or ""):
            place = f"{path.relative_to(PROJECT_ROOT)}:{node.lineno}: {node.name}"
            if not description:
                yield f"{place} does not describe {name}; write a noun phrase, as in 'Size of the hidden layer.'"
            elif FRAGMENT.match(description):
                yield f"{place} describes {name} by {description[:60]!r}; write a noun phrase that stands alone"


@pytest.mark.parametrize("kind", ["pages", "sources"])
def test_phrases(kind: str):
    texts = [(path, path.read_text(encoding="utf-8")) for path in (PAGES if kind == "pages" else SOURCES)]
    found = [problem for path, text in texts for problem in phrases(path, prose(text) if kind == "pages" else text)]
    assert not found, "\n".join(["write this differently:", *found])


def test_lines_of_pages_are_narrow():
    found = [problem for path in PAGES for problem in wide_lines(path, prose(path.read_text(encoding="utf-8")))]
    assert not found, "\n".join(found)


def test_parameters_are_described_by_noun_phrases():
    found = [problem for path in SOURCES for problem in undescribed_parameters(path, path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_what_is_found():
    """The checks themselves, on a page and on a module that break every rule."""
    path = PROJECT_ROOT / "page.md"
    page = (
        "The layer\nbehind it.\n\n```\nbehind\n```\n\nA parser\n    is no model, but there\nis no other.\n" + "x" * 120
    )
    assert list(phrases(path, prose(page))) == [
        "page.md:2: 'behind'; write after",
        "page.md:8: 'is no'; write is not a",
    ]
    assert list(wide_lines(path, prose(page))) == ["page.md:11: 120 characters; write at most 119"]
    module = (
        'class A:\n    """\n    # Parameters\n\n    a : `int`\n    b : `int`, optional\n        Of the layer.\n'
        '    c, d : `int`\n        Sizes.\n\n    # Returns\n\n    e : `int`\n    """\n'
    )
    assert [problem.split(";")[0] for problem in undescribed_parameters(path, module)] == [
        "page.md:1: A does not describe a",
        "page.md:1: A describes b by 'Of the layer.'",
    ]
    assert not list(undescribed_parameters(path, module.replace("class A", "class _A")))
