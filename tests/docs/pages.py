"""README.md and the pages of `docs/`, and the commands and programs in them."""

import re
import shlex
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

from tests.conftest import PROJECT_ROOT

PAGES = ["README.md", *sorted(str(path.relative_to(PROJECT_ROOT)) for path in (PROJECT_ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"([A-Z_]+)=(.*)")


class Block(NamedTuple):
    language: str
    text: str
    line: int


class Command(NamedTuple):
    """
    # Parameters

    variables : `Dict[str, str]`
        `NAME=value` in front of it.
    words : `List[str]`
        Program and arguments.
    """

    variables: Dict[str, str]
    words: List[str]

    @property
    def is_allennlp(self) -> bool:
        return Path(self.words[0]).name == "allennlp" or self.words[:3] == ["python", "-m", "spigot_allennlp"]

    @property
    def arguments(self) -> List[str]:
        """Behind `allennlp`."""
        return self.words[3 if self.words[0] == "python" else 1 :]

    def __str__(self) -> str:
        return shlex.join(self.words)


def blocks(page: str) -> Iterator[Block]:
    text = (PROJECT_ROOT / page).read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)


def commands(block: Block) -> Iterator[Command]:
    if block.language != "bash":
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        variables = {}
        while words and (match := _VARIABLE.fullmatch(words[0])):
            variables[match[1]] = match[2]
            words = words[1:]
        if words:
            yield Command(variables, words)
