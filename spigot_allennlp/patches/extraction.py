"""
The one guard of everything that AllenNLP and cached-path unpack: archives of models, and what `cached_path` extracts
for `allennlp cached-path --extract-archive`, `allennlp diff`, the `sharded` reader and vocabularies.

cached-path compares names only, and so accepts a chain of symbolic links (`a -> .`, `b -> a/..`, ...) that leads out of
the directory. Here an archive holds files, directories, and hard links to its own files; nothing else. It has at most
`MAX_MEMBERS` of them, and they unpack to at most `max_unpacked_bytes()`.
"""

import os
import sys
import tarfile
import zipfile
from types import SimpleNamespace
from typing import Any, Optional

import cached_path  # noqa: F401 (its submodule has the name of its function)
from allennlp.common.checks import ConfigurationError

MAX_MEMBERS = 10_000

_DEFAULT_MAX_UNPACKED_BYTES = 20 * 2**30

# Headers are read at once, the content of files in pieces of a few kilobytes.
_MAX_HEADER_BYTES = 2**20


def max_unpacked_bytes() -> int:
    """20 GiB, or what the environment variable `SPIGOT_MAX_UNPACKED_BYTES` says."""
    return int(os.environ.get("SPIGOT_MAX_UNPACKED_BYTES", _DEFAULT_MAX_UNPACKED_BYTES))


def apply() -> None:
    """Has cached-path unpack with the classes of this module. Calling it again does nothing."""
    module = sys.modules["cached_path._cached_path"]
    module.tarfile = SimpleNamespace(open=GuardedTarFile.open, is_tarfile=GuardedTarFile.is_tarfile)
    module.ZipFile = GuardedZipFile
    # A format that neither the standard library nor this module reads.
    module._is_rarfile = lambda *_: False


class _Members:
    """
    Counts what an archive holds, and refuses what it must not.

    # Errors

    `ConfigurationError`.
    """

    def __init__(self, archive: Any) -> None:
        self.archive = os.path.basename(str(archive)) if isinstance(archive, (str, os.PathLike)) else "the archive"
        self._number = 0
        self._size = 0

    def add(self, size: int, *names: str) -> None:
        for name in names:
            parts = name.replace("\\", "/").split("/")
            if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                raise ConfigurationError(f"{_shown(name)} in {self.archive} would be unpacked outside of its directory")
        self._number += 1
        self._size += size
        if self._number > MAX_MEMBERS:
            raise ConfigurationError(f"{self.archive} holds more than {MAX_MEMBERS:,} files")
        if self._size > max_unpacked_bytes():
            raise ConfigurationError(
                f"{self.archive} unpacks to more than {max_unpacked_bytes():,} bytes; the environment variable "
                "SPIGOT_MAX_UNPACKED_BYTES allows more"
            )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}...")


class GuardedTarFile(tarfile.TarFile):
    """
    A tar file whose members are checked while they are read, so before anything of them is unpacked.

    # Errors

    `ConfigurationError` for links and devices, for names outside of the directory, and for what is too large.
    """

    # What current versions of Python do by default: no owners, no special permissions.
    extraction_filter = staticmethod(getattr(tarfile, "data_filter", lambda member, _: member))

    def __init__(self, name: Any = None, mode: str = "r", fileobj: Any = None, **kwargs: Any) -> None:
        self._checked = _Members(name)
        # An uncompressed file has no header that is larger than itself.
        super().__init__(name, mode, fileobj and _BoundedReads(fileobj, self._checked.archive), **kwargs)

    @classmethod
    def is_tarfile(cls, path: Any) -> bool:
        try:
            cls.open(path).close()
        except tarfile.TarError:
            return False
        return True

    def next(self) -> Optional[tarfile.TarInfo]:
        is_new = self.firstmember is None
        member = super().next()
        if member is not None and is_new:
            if not (member.isfile() or member.isdir() or member.islnk()):
                raise ConfigurationError(
                    f"{_shown(member.name)} in {self._checked.archive} is a link or a device; valid: files, directories"
                )
            # The same file may be in an archive twice, the second time as a hard link.
            self._checked.add(member.size, member.name, *[member.linkname] * member.islnk())
            member.mode = 0o755 if member.isdir() else 0o644
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
        return member


class _BoundedReads:
    """The content of a compressed tar file. A header that claims gigabytes, which tarfile reads at once, is refused."""

    def __init__(self, file: Any, archive: str) -> None:
        self._file = file
        self._archive = archive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ConfigurationError(
                f"a header in {self._archive} claims {size:,} bytes; valid: at most {_MAX_HEADER_BYTES:,}"
            )
        return self._file.read(size)


class GuardedZipFile(zipfile.ZipFile):
    """
    # Errors

    `ConfigurationError` for names outside of the directory, and for what is too large.
    """

    def extractall(self, path: Any = None, members: Any = None, pwd: Any = None) -> None:
        checked = _Members(self.filename)
        for member in self.infolist():
            checked.add(member.file_size, member.filename)
        super().extractall(path, members, pwd)
