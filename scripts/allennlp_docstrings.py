"""
What mkdocs.yml needs to show AllenNLP's docstrings: a list in place of each section's indented entries, which in
Markdown would run into one paragraph, and section titles that are not in the table of contents.
"""

import re
from typing import Any, Iterator

import griffe

_TITLE = re.compile(r"# +(.+)")
_PARAMETER = re.compile(r"\w+(, \w+)* : `")


class AllenNlpDocstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = "\n".join(_markdown(obj.docstring.value.splitlines()))


def _markdown(lines: list[str]) -> Iterator[str]:
    in_section = in_code = False
    for line, following in zip(lines, [*lines[1:], ""]):
        in_code ^= line.startswith("```")
        title = _TITLE.fullmatch(line)
        if title and not in_code:
            in_section = True
            yield f"**{title[1]}**"
        elif in_section and line[:1].strip() and (following.startswith("    ") or _PARAMETER.match(line)):
            # With a line break after it.
            yield f"- {line}  "
        else:
            yield line
