import sys
from contextlib import contextmanager
from typing import Iterator

from allennlp.common.checks import ConfigurationError


@contextmanager
def as_messages() -> Iterator[None]:
    """
    What is wrong with a command's arguments or files is said in one line, with exit status 1, instead of a traceback.

    # Errors

    `SystemExit` for a `ConfigurationError`, and for an `OSError` that names a file.
    """
    try:
        yield
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
