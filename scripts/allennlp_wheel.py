"""
Writes the wheel of AllenNLP 2.10.1 with metadata that current versions satisfy:

    python scripts/allennlp_wheel.py FOLDER

AllenNLP 2.10.1 is its last release, and its metadata pin torch<1.13, spacy<3.4, transformers<4.21, protobuf<4, ... On
Python 3.11 and later these pins have no solution, and on Python 3.10 their solution fails at import. The code itself
runs on current versions. So the pins go, and this package's own requirements (setup.cfg) give the ranges that work; not
a line of the code is changed. torchvision, fairscale and wandb become optional: `spigot_allennlp_startup` lets AllenNLP
be imported without them. The version becomes 2.10.1+ranges, which pip prefers to 2.10.1.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from wheels import rewrite_wheel

VERSION = "2.10.1"
LOCAL_VERSION = f"{VERSION}+ranges"
OPTIONAL = ("torchvision", "fairscale", "wandb")


def without_pins(metadata: str) -> str:
    lines = []
    for line in metadata.splitlines():
        requirement = re.match(r"Requires-Dist: ([\w.-]+)[^;]*(;.*)?$", line)
        if requirement is None:
            lines.append(f"Version: {LOCAL_VERSION}" if line == f"Version: {VERSION}" else line)
        elif requirement[1] not in OPTIONAL:
            lines.append(f"Requires-Dist: {requirement[1]} {requirement[2] or ''}".rstrip())
    return "\n".join(lines) + "\n"


def write_wheel(folder: Path) -> None:
    """
    Write the wheel into `folder`, unless it is there.
    """
    target = folder / f"allennlp-{LOCAL_VERSION}-py3-none-any.whl"
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*download, "--dest", directory, f"allennlp=={VERSION}"], check=True)
        (source,) = Path(directory).glob("*.whl")
        written = Path(directory) / target.name
        rewrite_wheel(
            source,
            written,
            added={},
            renamed=lambda member: member.replace(f"-{VERSION}.dist-info/", f"-{LOCAL_VERSION}.dist-info/"),
            edited=lambda member, content: (
                without_pins(content.decode()).encode() if member.endswith(".dist-info/METADATA") else content
            ),
        )
        written.rename(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the wheel is written")
    write_wheel(parser.parse_args().folder)
