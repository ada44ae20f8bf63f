"""
Archives of models, `model.tar.gz`: each is written at once, loading one that comes from someone else is safe
(`extraction.py`, `untrusted.py`), and one that is damaged gives one error, which names it.
"""

import itertools
import os
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, List, Optional

from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.models import archival
from allennlp.models.model import _DEFAULT_WEIGHTS
from allennlp.nn import util as nn_util

from spigot_allennlp import pretrained
from spigot_allennlp.files import written_atomically
from spigot_allennlp.patches import untrusted
from spigot_allennlp.patches.extraction import GuardedTarFile
from spigot_allennlp.patches.replacement import replace, replace_everywhere


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    replace_everywhere(archival, "load_archive", _safely_and_naming_the_archive)
    replace_everywhere(archival, "archive_model", _whole_archive)
    replace(archival, "extracted_archive", _extracted_in_its_place)
    replace(archival, "_load_dataset_readers", _with_a_checked_config)
    replace(nn_util, "read_state_dict", _naming_the_weights)


def _safely_and_naming_the_archive(original: Callable) -> Callable:
    """
    The name of a parser that ships with the package stands for its archive. Whatever is wrong with an archive, or what
    it needs, the error names the archive.
    """

    def load_archive(archive_file: Any, *args: Any, **kwargs: Any) -> archival.Archive:
        archive_file = pretrained.archive_file(archive_file)
        try:
            with untrusted.loading(archive_file):
                return original(archive_file, *args, **kwargs)
        except Exception as error:
            reason, cause = str(error), None
            if not isinstance(error, (ConfigurationError, FileNotFoundError)):
                reason, cause = f"{type(error).__name__}: {error}", error
            raise ConfigurationError(f"{archive_file}: cannot load the archive: {reason}") from cause

    return load_archive


def _extracted_in_its_place(original: Callable) -> Callable:
    """What `GuardedTarFile` allows, and all that a model needs; nothing is left of an archive that is refused."""

    @contextmanager
    def extracted_archive(resolved_archive_file: Any, cleanup: bool = True) -> Iterator[str]:
        directory = tempfile.mkdtemp()
        try:
            try:
                with GuardedTarFile.open(resolved_archive_file, "r:gz") as archive:
                    # All members are read, and checked, before the first is unpacked.
                    archive.extractall(directory, archive.getmembers())
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                raise ConfigurationError(f"it is damaged, or no .tar.gz: {error}") from None
            for name in (archival.CONFIG_NAME, archival._WEIGHTS_NAME, "vocabulary"):
                if not os.path.exists(os.path.join(directory, name)):
                    found = ", ".join(sorted(os.listdir(directory))) or "nothing"
                    raise ConfigurationError(f"it lacks {name}; found {found}")
            yield directory
        except BaseException:
            cleanup = True
            raise
        finally:
            if cleanup:
                shutil.rmtree(directory, ignore_errors=True)

    return extracted_archive


def _whole_archive(original: Callable) -> Callable:
    """A run that is killed meanwhile, or a full disk, would leave half an archive under the name of a whole one."""

    def archive_model(
        serialization_dir: Any,
        weights: str = _DEFAULT_WEIGHTS,
        archive_path: Any = None,
        include_in_archive: Optional[List[str]] = None,
    ) -> str:
        path = os.path.join(serialization_dir, "model.tar.gz") if archive_path is None else str(archive_path)
        if os.path.isdir(path):
            path = os.path.join(path, "model.tar.gz")
        with written_atomically(path) as part:
            original(serialization_dir, weights, part, include_in_archive)
        return path

    return archive_model


def _with_a_checked_config(original: Callable) -> Callable:
    """Of all that is made of a config, AllenNLP makes the readers first."""

    def load_dataset_readers(config: Params, serialization_dir: str) -> Any:
        params = config.params
        missing = [name for name in ("dataset_reader", "model") if not isinstance(params, dict) or name not in params]
        if missing:
            raise ConfigurationError(f"its {archival.CONFIG_NAME} has no '{missing[0]}'")
        for loader, key in itertools.product(("data_loader", "validation_data_loader"), ("reader", "data_path")):
            if isinstance(params.get(loader), dict) and key in params[loader]:
                raise ConfigurationError(f"its config has '{loader}.{key}', which is for the command to say")
        place = _find(config.as_dict(quiet=True), "trust_remote_code")
        if place:
            raise ConfigurationError(
                f"its config has {place}, to run code that is downloaded. Valid: what transformers knows by itself"
            )
        return original(config, serialization_dir)

    return load_dataset_readers


def _find(value: Any, key: str) -> Optional[str]:
    """Where in a config a key is, unless it is false."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        if name == key and part:
            return str(name)
        place = _find(part, key)
        if place:
            return f"{name}.{place}"
    return None


def _naming_the_weights(original: Callable) -> Callable:
    original = untrusted.reading_tensors_only(original)

    def read_state_dict(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(path, *args, **kwargs)
        except FileNotFoundError:
            raise
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError) as error:
            problem = "are damaged, or hold more than tensors, which could run code"
            raise ConfigurationError(f"the weights, {os.path.basename(path)}, {problem}: {error}") from None

    return read_state_dict
