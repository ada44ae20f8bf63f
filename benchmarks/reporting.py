"""
What the benchmarks' reports share: where they were run, and how they are written.
"""

import datetime
import json
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

import torch

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent


def machine(threads: int, distributions: Iterable[str] = ()) -> Dict[str, Any]:
    """
    # Parameters

    threads : `int`
    distributions : `Iterable[str]`, optional
        Further packages, by their names on PyPI, whose versions matter.
    """
    names = ("spigot-allennlp", "torch", "numpy", "numba", "allennlp", *distributions)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
    }


def version(distribution: str) -> Optional[str]:
    """The installed version, or `None`."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown; `None` stands for what was not measured."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def bars_table(bars: List[Dict[str, Any]]) -> str:
    """
    # Parameters

    bars : `List[Dict[str, Any]]`
        Each with `name`, `required` and `measured` (texts), and `met` (`None` if it was not measured).
    """
    verdicts = {True: "met", False: "**missed**", None: "not measured"}
    rows = [(bar["name"], bar["required"], bar["measured"], verdicts[bar["met"]]) for bar in bars]
    return table(["bar", "required", "measured", ""], rows)


def write(directory: Path, name: str, title: str, results: Dict[str, Any], sections: Dict[str, str]) -> None:
    """
    Write `<name>.json` and `<name>.md`, and print the latter.

    # Parameters

    directory : `Path`
    name, title : `str`
    results : `Dict[str, Any]`
        With the `machine`.
    sections : `Dict[str, str]`
        Markdown by heading.
    """
    at = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in at["versions"].items() if number)
    threads = "one thread" if at["threads"] == 1 else f"{at['threads']} threads"
    text = (
        f"# {title}\n\n{at['cpu']}, {at['cores']} cores, {threads}; Python {at['python']}, {versions}; {at['date']}; "
    )
    text += f"`{at['command']}`\n"
    text += "".join(f"\n## {heading}\n\n{body}" for heading, body in sections.items())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (directory / f"{name}.md").write_text(text)
    print(f"\n{text}\nWritten to {directory / name}.json and .md")
