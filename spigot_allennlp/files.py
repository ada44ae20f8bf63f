"""
Files that are whole at every moment.
"""

import os
from contextlib import contextmanager, suppress
from typing import Any, Iterator

import torch


@contextmanager
def written_atomically(path: Any, several_writers: bool = False) -> Iterator[str]:
    """
    The path of a file to write, which takes the place of `path` when the block ends without an error. Whoever reads
    `path` sees the old file or the new one, and whole; also after a power failure.

    # Parameters

    path : `Union[str, os.PathLike]`
        The file to be replaced.
    several_writers : `bool`, optional (default = `False`)
        Whether several processes may write the file at the same time. The last one wins.
    """
    part = f"{path}.{os.getpid()}.part" if several_writers else f"{path}.part"
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.remove(part)
        raise


def save_atomically(content: Any, path: Any) -> None:
    """
    `torch.save`, by way of `written_atomically`.
    """
    with written_atomically(path) as part:
        torch.save(content, part)


def write_atomically(path: Any, text: str) -> None:
    """
    Write a text file, by way of `written_atomically`.
    """
    with written_atomically(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(text)
