"""
Archives of models, `model.tar.gz`, that come from someone else: loading one runs no code of it, and one that is damaged
gives one error, which names it.

What AllenNLP 2.10.1 leaves open:

- unpacking follows paths and links in the archive to any place of the file system;
- a config may name any function that Python can import, with its arguments: `{"type": "os.system", "command": ...}`;
- a config may have transformers run the code of a model on the Hugging Face Hub (`trust_remote_code`);
- with a torch before 2.6, weights are unpickled, which can run anything.
"""

import os
import pickle
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, Optional

import torch
from allennlp.common import Params, Registrable
from allennlp.common.checks import ConfigurationError
from allennlp.models import archival
from allennlp.nn import Activation
from allennlp.nn import util as nn_util
from allennlp.training.optimizers import Optimizer

from spigot_allennlp.patches.replacement import replace

# What AllenNLP registers that is no subclass of what it is registered for.
_REGISTERED_FOR = {Activation: torch.nn.Module, Optimizer: torch.optim.Optimizer}


def apply() -> None:
    """
    Apply every patch of this file. Calling it again does nothing.
    """
    original = archival.load_archive
    replace(archival, "load_archive", _naming_the_archive)
    for module in list(sys.modules.values()):
        # Commands and predictors have a name of their own for it.
        if getattr(module, "load_archive", None) is original:
            module.load_archive = archival.load_archive
    replace(archival, "extracted_archive", _extracted_in_its_place)
    replace(archival, "_load_dataset_readers", _with_a_checked_config)
    replace(nn_util, "read_state_dict", _tensors_only)
    replace(Registrable, "resolve_class_name", _classes_only)


def _naming_the_archive(original: Callable) -> Callable:
    """Whatever is wrong with an archive, or what it needs, the error says of which archive it is."""

    def load_archive(archive_file: Any, *args: Any, **kwargs: Any) -> archival.Archive:
        try:
            return original(archive_file, *args, **kwargs)
        except Exception as error:
            reason, cause = str(error), None
            if not isinstance(error, (ConfigurationError, FileNotFoundError)):
                reason, cause = f"{type(error).__name__}: {error}", error
            raise ConfigurationError(f"{archive_file}: cannot load the archive: {reason}") from cause

    return load_archive


def _extracted_in_its_place(original: Callable) -> Callable:
    """
    Only files and directories, with names inside the directory that they are unpacked into, and all that a model needs.
    """

    @contextmanager
    def extracted_archive(resolved_archive_file: Any, cleanup: bool = True) -> Iterator[str]:
        directory = tempfile.mkdtemp()
        try:
            try:
                with tarfile.open(resolved_archive_file, "r:gz") as archive:
                    members = archive.getmembers()
                    for member in members:
                        _check_member(member)
                    archive.extractall(directory, members)
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


def _check_member(member: tarfile.TarInfo) -> None:
    # `include_in_archive` may have put one file in twice, the second time as a hard link.
    for name in (member.name, member.linkname) if member.islnk() else (member.name,):
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise ConfigurationError(f"'{name}' in it would be unpacked outside of the archive's own directory")
    if not (member.isfile() or member.isdir() or member.islnk()):
        raise ConfigurationError(f"'{member.name}' in it is neither a file nor a directory, but a link or a device")


def _with_a_checked_config(original: Callable) -> Callable:
    """Of all that is made of a config, AllenNLP makes the readers first."""

    def load_dataset_readers(config: Params, serialization_dir: str) -> Any:
        params = config.params
        missing = [name for name in ("dataset_reader", "model") if not isinstance(params, dict) or name not in params]
        if missing:
            raise ConfigurationError(f"its {archival.CONFIG_NAME} has no '{missing[0]}'")
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


def _tensors_only(original: Callable) -> Callable:
    """AllenNLP's call of `torch.load` reads nothing else since torch 2.6, where that is the default."""

    def read_state_dict(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if torch.__version__ < (2, 6):
                torch.load(path, map_location="cpu", weights_only=True)
            return original(path, *args, **kwargs)
        except FileNotFoundError:
            raise
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError) as error:
            problem = "are damaged, or hold more than tensors, which could run code"
            raise ConfigurationError(f"the weights, {os.path.basename(path)}, {problem}: {error}") from None

    return read_state_dict


def _classes_only(original: Callable) -> Callable:
    """
    In place of a registered name a config may give the path of a class. It has to be of the kind that is wanted.
    """

    def resolve_class_name(cls: Any, name: str) -> Any:
        found = original(cls, name)
        if name not in Registrable._registry[cls]:
            wanted = (cls, *(base for kind, base in _REGISTERED_FOR.items() if kind is cls))
            if not (isinstance(found[0], type) and issubclass(found[0], wanted)):
                raise ConfigurationError(f"'{name}' is no {cls.__name__}; valid: {', '.join(cls.list_available())}")
        return found

    return resolve_class_name
