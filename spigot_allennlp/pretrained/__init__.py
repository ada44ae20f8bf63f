"""
Parsers that ship with the package, found by name wherever AllenNLP takes an archive.

A parser is a folder here, `<name>/`, with the archive `model.tar.gz`, a model card `README.md` and the license of the
weights.
"""

import os
import re
from pathlib import Path
from typing import Any, List

from allennlp.common.checks import ConfigurationError

_FOLDER = Path(__file__).parent

# Paths of archives have a suffix or a folder, addresses have both.
_NAME = re.compile(r"\w+")


def pretrained_names() -> List[str]:
    """The parsers that ship with the package."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.tar.gz"))


def archive_file(name: Any) -> Any:
    """
    # Parameters

    name : `Union[str, os.PathLike]`
        A name out of `pretrained_names()`, or whatever else AllenNLP takes for an archive. A file or folder of that
        name in the working directory comes first.

    # Returns

    `Union[str, os.PathLike]`
        The path of the archive that ships with the package, or `name` itself where it is not just a name.

    # Errors

    `ConfigurationError` for a name of neither a parser nor a file, with the known names.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or os.path.exists(name):
        return name
    if name not in pretrained_names():
        known = ", ".join(map(repr, pretrained_names())) or "none"
        raise ConfigurationError(
            f"'{name}' is neither a file or folder nor a parser that ships with spigot_allennlp; valid: the path of a "
            f"model.tar.gz, or one of {known}"
        )
    return str(_FOLDER / name / "model.tar.gz")
