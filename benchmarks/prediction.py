"""
`allennlp predict` on raw sentences: its speed, and whether its memory grows with the file.

    .venv/bin/python benchmarks/prediction.py --text train.conllu

Predicts a file and its first quarter, each in a process of its own; the difference of the two is free of starting up.
Writes `prediction.json` and `prediction.md` next to this file.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Dict, Iterator, List

from reporting import HERE, ROOT, bars_table, machine, table, write

CONFIG = ROOT / "training_configs/treebank/spigot.jsonnet"
FIXTURES = ROOT / "fixtures/graphs"
# Peak memory of the whole file, as a multiple of its quarter's peak.
MAX_MEMORY_RATIO = 1.05


def sentences(path: Path) -> Iterator[str]:
    """The raw text of each sentence of a CoNLL-U file, or the lines of another."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if path.suffix != ".conllu":
                text = line.strip()
            elif line.startswith("# text = "):
                text = line.split("=", 1)[1].strip()
            else:
                continue
            if text:
                yield text


def allennlp(*arguments: str, environment: Dict[str, str]) -> Dict[str, float]:
    """Run a command of AllenNLP; its `seconds`, those that it computed (`cpu_seconds`) and its `peak_bytes`."""
    command = [sys.executable, "-m", "allennlp", *arguments, "--include-package", "spigot_allennlp"]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        # Waited for here, for the memory of this one process.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{command} failed:\n{output.read().decode(errors='replace')[-4000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * unit,
    }


def train_parser(directory: Path, environment: Dict[str, str]) -> Path:
    """An archive of a parser of full size that has seen the fixtures."""
    overrides = '{"trainer": {"num_epochs": 3, "callbacks": []}}'
    allennlp("train", str(CONFIG), "--serialization-dir", str(directory), "-o", overrides, environment=environment)
    return directory / "model.tar.gz"


def predict(archive: Path, lines: List[str], directory: Path, arguments: argparse.Namespace) -> Dict[str, float]:
    source, target = directory / f"{len(lines)}.txt", directory / f"{len(lines)}.jsonl"
    source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = ["--output-file", str(target), "--batch-size", str(arguments.batch_size), "--silent"]
    measured = allennlp("predict", str(archive), str(source), *options, environment=environment(arguments))
    with open(target, encoding="utf-8") as predictions:
        written = sum(1 for _ in predictions)
    if written != len(lines):
        sys.exit(f"{written} predictions for {len(lines)} sentences")
    print(f"{len(lines)} sentences: {measured['seconds']:.1f} s, {measured['peak_bytes'] / 1e6:.0f} MB", flush=True)
    return {"sentences": len(lines), **measured}


def environment(arguments: argparse.Namespace) -> Dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "SPIGOT_TRAIN_DATA": str(FIXTURES / "train.conllu"),
        "SPIGOT_VALIDATION_DATA": str(FIXTURES / "dev.conllu"),
        "SPIGOT_SEED": "13370",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=FIXTURES / "train.conllu", help="CoNLL-U, or a sentence a line")
    parser.add_argument("--archive", type=Path, help="of a parser (default: one trained on the fixtures first)")
    parser.add_argument("--sentences", type=int, default=10_000, help="repeated if the file has fewer")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE, help="the directory to write to")
    arguments = parser.parse_args()

    # The same sentences again and again, so that the runs differ in nothing but the file's length.
    quarter_lines = list(islice(cycle(sentences(arguments.text)), arguments.sentences // 4))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        archive = arguments.archive or train_parser(directory / "parser", environment(arguments))
        quarter = predict(archive.resolve(), quarter_lines, directory, arguments)
        whole = predict(archive.resolve(), 4 * quarter_lines, directory, arguments)

    def rate(clock: str) -> float:
        return (whole["sentences"] - quarter["sentences"]) / (whole[clock] - quarter[clock])

    ratio = whole["peak_bytes"] / quarter["peak_bytes"]
    bars: List[Dict[str, Any]] = [
        {
            "name": "peak memory of the whole file, as a multiple of its quarter's peak",
            "required": f"at most {MAX_MEMORY_RATIO}",
            "measured": f"{ratio:.3f}",
            "met": ratio <= MAX_MEMORY_RATIO,
        }
    ]
    results = {
        "machine": machine(arguments.threads),
        "batch_size": arguments.batch_size,
        "bars": bars,
        "runs": [quarter, whole],
        "sentences_per_second": rate("seconds"),
        "sentences_per_cpu_second": rate("cpu_seconds"),
    }
    rows = [
        [
            run["sentences"],
            *(f"{run[clock]:.1f}" for clock in ("seconds", "cpu_seconds")),
            f"{run['peak_bytes'] / 1e6:.0f}",
        ]
        for run in (quarter, whole)
    ]
    sections = {
        "Bars": bars_table(bars),
        "Runs": table(["sentences", "seconds", "CPU seconds", "peak MB"], rows)
        + f"\n{rate('seconds'):.0f} sentences/s ({rate('cpu_seconds'):.0f} per second of CPU) in batches of "
        + f"{arguments.batch_size}, starting up not counted.\n",
    }
    write(arguments.out, "prediction", "Prediction", results, sections)


if __name__ == "__main__":
    main()
