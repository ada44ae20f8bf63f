"""
Files that are whole at every moment.
"""

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from typing import Any, Iterator

import torch

# Less space than that, in bytes, is none.
_FULL = 2**20


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

    # Errors

    `OSError` that names the file and its size so far, if the disk is full. Whatever the error is, nothing is left of
    the new file.
    """
    part = f"{path}.{os.getpid()}.part" if several_writers else f"{path}.part"
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        size = os.path.getsize(part) if os.path.exists(part) else 0
        free = shutil.disk_usage(os.path.dirname(part) or ".").free
        with suppress(OSError):
            os.remove(part)
        # torch's own writer does not say what the operating system said.
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or (
            isinstance(error, RuntimeError) and free < _FULL
        ):
            raise OSError(
                errno.ENOSPC,
                f"the disk is full: {size:,} bytes of this file could be written, and {free:,} are left. What was "
                "written of it is removed, and what was there before is kept",
                os.fspath(path),
            ) from error
        raise


def save_atomically(content: Any, path: Any) -> None:
    """
    `torch.save`, through `written_atomically`.
    """
    with written_atomically(path) as part:
        torch.save(content, part)


def write_atomically(path: Any, text: str) -> None:
    """
    Write a text file, through `written_atomically`.
    """
    with written_atomically(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(text)
