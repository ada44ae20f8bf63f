"""
Wheels, rewritten: with other metadata, or with more files. Needs nothing but Python.
"""

import base64
import hashlib
from pathlib import Path
from typing import Callable, Dict
from zipfile import ZIP_DEFLATED, ZipFile


def rewrite_wheel(
    source: Path,
    target: Path,
    added: Dict[str, bytes],
    renamed: Callable[[str], str] = lambda member: member,
    edited: Callable[[str, bytes], bytes] = lambda member, content: content,
) -> None:
    """
    Write the wheel `source` to `target`, with a new record of its files.

    # Parameters

    source, target : `Path`
    added : `Dict[str, bytes]`
        Content of additional files, by their path in the wheel.
    renamed : `Callable[[str], str]`
        Path in `target` of a file, given its path in `source`.
    edited : `Callable[[str, bytes], bytes]`
        Content in `target` of a file, given its path and its content in `source`.
    """
    with ZipFile(source) as old, ZipFile(target, "w", ZIP_DEFLATED) as new:
        record, lines = "", []

        def write(path: str, content: bytes) -> None:
            new.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            lines.append(f"{path},sha256={digest},{len(content)}")

        for member in old.infolist():
            if member.filename.endswith(".dist-info/RECORD"):
                record = renamed(member.filename)
            elif not member.is_dir():
                write(renamed(member.filename), edited(member.filename, old.read(member)))
        for path, content in added.items():
            write(path, content)
        new.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")
