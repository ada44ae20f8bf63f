"""
The build backend: setuptools, and what it has no way to install.

Every wheel, editable ones too, has `spigot_allennlp.pth` at its top, which Python executes at start-up
(`spigot_allennlp_startup` says why). A wheel that is not editable also has what `allennlp quickstart` copies:
`training_configs/`, `fixtures/` and the page of first commands.
"""

import tempfile
from pathlib import Path
from typing import Any, Dict

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from wheels import rewrite_wheel

ROOT = Path(__file__).resolve().parent.parent
STARTUP_FILE = {"spigot_allennlp.pth": b"import spigot_allennlp_startup\n"}
QUICKSTART = ("training_configs", "fixtures", "docs/quickstart.md")


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    return _build(build_meta.build_wheel, wheel_directory, config_settings, {**STARTUP_FILE, **_quickstart_files()})


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    return _build(build_meta.build_editable, wheel_directory, config_settings, STARTUP_FILE)


def _build(build: Any, wheel_directory: str, config_settings: Any, added: Dict[str, bytes]) -> str:
    with tempfile.TemporaryDirectory() as directory:
        name = build(directory, config_settings)
        rewrite_wheel(Path(directory) / name, Path(wheel_directory) / name, added)
    return name


def _quickstart_files() -> Dict[str, bytes]:
    files = {}
    for name in QUICKSTART:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                files[f"spigot_allennlp/quickstart/{file.relative_to(ROOT).as_posix()}"] = file.read_bytes()
    return files
