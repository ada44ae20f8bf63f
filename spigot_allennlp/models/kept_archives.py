import os
import shutil
from typing import Any, Callable, Iterator, Optional, Tuple, Union

from allennlp.common import Params
from allennlp.common.file_utils import cached_path
from allennlp.models import Model

from spigot_allennlp import pretrained
from spigot_allennlp.files import written_atomically
from spigot_allennlp.models.old_archives import LoadsOldArchives


class KeepsArchives(LoadsOldArchives):
    """
    A model with pre-trained parts, `{"type": "from_archive", "archive_file": ...}`. To be loaded, it has to be built
    anew, and for that needs their archives; so training puts a copy of each into its serialization directory, as
    `<key>.tar.gz`, and such a copy is what is read, wherever there is one. With the name among the config's
    `include_in_archive` the model's own archive needs no other file.
    """

    @classmethod
    def from_params(
        cls,
        params: Params,
        constructor_to_call: Optional[Callable[..., Model]] = None,
        constructor_to_inspect: Optional[Union[Callable[..., Model], Callable[[Model], None]]] = None,
        **extras: Any,
    ) -> "KeepsArchives":
        directory = extras.get("serialization_dir")
        if directory is not None:
            for key, part in _from_archives(params.params):
                part["archive_file"] = _kept(part["archive_file"], os.path.join(directory, f"{key}.tar.gz"))
        return super().from_params(params, constructor_to_call, constructor_to_inspect, **extras)


def _from_archives(config: dict, prefix: str = "") -> Iterator[Tuple[str, dict]]:
    for key, value in config.items():
        # The config may be someone else's: a key with a slash would lead out of the directory.
        if isinstance(value, dict) and key == os.path.basename(key):
            if value.get("type") == "from_archive" and "archive_file" in value:
                yield prefix + key, value
            else:
                yield from _from_archives(value, f"{prefix}{key}.")


def _kept(archive_file: str, copy: str) -> str:
    if os.path.dirname(os.path.abspath(archive_file)) == os.path.dirname(os.path.abspath(copy)):
        # Kept by the model that this one is a part of.
        return archive_file
    if not os.path.exists(copy):
        original = cached_path(pretrained.archive_file(archive_file))
        if os.path.isdir(original):
            # A serialization directory, from which AllenNLP loads, too.
            return archive_file
        # The workers of a distributed run may come here together.
        with written_atomically(copy, several_writers=True) as part:
            shutil.copyfile(original, part)
    return copy
