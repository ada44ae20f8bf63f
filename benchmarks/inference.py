"""
Structured inference, side by side with its peers: time, memory and growth of every operation, on random scores.

    .venv/bin/pip install -c requirements/constraints.txt -e ".[benchmarks]"
    .venv/bin/python benchmarks/inference.py

The first command adds the peers beside the tested versions of torch and NumPy, which it leaves alone. Peers that are
missing are left out. Writes `inference.json`, `inference.md` and `inference.svg` next to this file.

In each cell (operation, batch size, number of words) all implementations take turns on the same scores, so that a
machine that slows down slows all of them, and the results are compared before anything is timed. Where it can be
chosen, trees have a single root. Converting between the formats of ours and a peer's is not part of the time.
"""

import argparse
import ctypes
import gc
import importlib.util
import math
import multiprocessing
import resource
import statistics
import time
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from allennlp.nn.chu_liu_edmonds import decode_mst
from reporting import HERE, bars_table, machine, table, version, write

from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.functional.sparsemap import TreeOracle, active_set
from spigot_allennlp.structures import ConstituencyTree, NonprojectiveTree, ProjectiveTree, SemiMarkov

OURS = "ours"
# The peers' names, the modules to import, and their distributions on PyPI.
PEERS = {
    "torch-struct": ("torch_struct", "torch-struct"),
    "SuPar": ("supar", "supar"),
    "entmax": ("entmax", "entmax"),
    "AllenNLP": ("allennlp", "allennlp"),
}
# Each sample of a time takes at least this many seconds, by calling as often as that needs.
SHORTEST_SAMPLE = 2e-3
MIN_SAMPLES = 3
# A call that took at least this many seconds needs no further one to say how often to call.
SLOW = 0.1


class Inputs:
    """
    `batch_size` sentences of `length` words, ROOT not counted.
    """

    def __init__(self, batch_size: int, length: int) -> None:
        generator = torch.Generator().manual_seed(batch_size * 1000 + length)
        shape = (batch_size, length + 1, length + 1)
        self.batch_size, self.length = batch_size, length
        self.scores = torch.randn(shape, generator=generator)
        # What the downstream model asks for: a gradient in the shape of the scores.
        self.gradient = torch.randn(shape, generator=generator)
        self.mask = torch.ones(shape[:2], dtype=torch.bool)

    @cached_property
    def spigot_point(self) -> torch.Tensor:
        structure = ProjectiveTree()
        legal = structure.legal_parts(self.scores, self.mask)
        return (structure.argmax(self.scores, self.mask) - self.gradient).masked_fill(~legal, 0.0)

    @property
    def words(self) -> torch.Tensor:
        return self.mask[:, 1:]

    @cached_property
    def spans(self) -> torch.Tensor:
        """Scores of spans of words, `(batch, first words, last words)`."""
        return self.scores[:, 1:, 1:].contiguous()

    @cached_property
    def segments(self) -> torch.Tensor:
        """Scores of segments of at most 4 words, with 5 labels; in the format of `SemiMarkov`."""
        generator = torch.Generator().manual_seed(self.length)
        return torch.randn(self.batch_size, self.length, 4, 5, 5, generator=generator)


Run = Callable[[], Any]
# The prepared call, and how its result reads in our format.
Prepared = Tuple[Run, Callable[[Any], torch.Tensor]]


class Operation(NamedTuple):
    """
    # Parameters

    name : `str`
    implementations : `Dict[str, Callable[[Inputs], Prepared]]`
        By name: ours, then `"<peer>"` or `"<peer> <what of it>"`.
    difference : `Callable[[Inputs, Tensor, Tensor], float]`
        How far two results are apart.
    tolerance : `float`, optional (default = `1e-4`)
    inexact : `Tuple[str, ...]`, optional
        The peers whose results are not compared.
    """

    name: str
    implementations: Dict[str, Callable[[Inputs], Prepared]]
    difference: Callable[[Inputs, torch.Tensor, torch.Tensor], float]
    tolerance: float = 1e-4
    inexact: Tuple[str, ...] = ()


def same(result: torch.Tensor) -> torch.Tensor:
    return result


def largest_difference(inputs: Inputs, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return (ours - theirs).abs().max().item()


def score_difference(inputs: Inputs, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of the trees, as there may be several best ones."""
    return ((ours - theirs) * inputs.scores).flatten(1).sum(-1).abs().max().item()


def from_heads(heads: torch.Tensor) -> torch.Tensor:
    arcs = torch.nn.functional.one_hot(heads.long(), heads.size(1)).float()
    arcs[:, 0] = 0
    return arcs


def without_root_row(arcs: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(arcs[:, :1]), arcs[:, 1:]], dim=1)


def our(call: Callable[[Inputs], torch.Tensor]) -> Callable[[Inputs], Prepared]:
    return lambda inputs: ((lambda: call(inputs)), same)


def our_gradient(inputs: Inputs) -> Prepared:
    structure = ProjectiveTree()
    scores = inputs.scores.clone().requires_grad_()

    def run() -> torch.Tensor:
        return torch.autograd.grad(structure.marginals(scores, inputs.mask), scores, inputs.gradient)[0]

    return run, same


def our_projection(inputs: Inputs) -> Prepared:
    point, oracle = inputs.spigot_point, TreeOracle(inputs.mask, projective=True, single_root=True)

    def run() -> torch.Tensor:
        solution = active_set(point, oracle, tolerance=1e-6)
        assert solution.converged.all(), "a projection did not reach its duality gap"
        return solution.projection

    return run, same


# torch-struct: potentials are (batch, heads, dependents) over the words, with the arcs from ROOT on the diagonal.


def to_torch_struct(arcs: torch.Tensor) -> torch.Tensor:
    potentials = arcs[:, 1:, 1:].transpose(1, 2).clone()
    potentials.diagonal(0, 1, 2).copy_(arcs[:, 1:, 0])
    return potentials


def from_torch_struct(potentials: torch.Tensor) -> torch.Tensor:
    words = potentials.detach().transpose(1, 2).clone()
    arcs = torch.nn.functional.pad(words, (1, 0, 1, 0))
    arcs[:, 1:, 0] = words.diagonal(0, 1, 2)
    arcs[:, 1:, 1:].diagonal(0, 1, 2).zero_()
    return arcs


def torch_struct(distribution: str, attribute: str) -> Callable[[Inputs], Prepared]:
    def prepare(inputs: Inputs) -> Prepared:
        import torch_struct as package

        # Its argmax works on potentials that need a gradient only.
        potentials = to_torch_struct(inputs.scores).requires_grad_()

        def run() -> torch.Tensor:
            return getattr(getattr(package, distribution)(potentials, multiroot=False), attribute)

        return run, from_torch_struct

    return prepare


def torch_struct_gradient(inputs: Inputs) -> Prepared:
    import torch_struct as package

    potentials, gradient = to_torch_struct(inputs.scores).requires_grad_(), to_torch_struct(inputs.gradient)

    def run() -> torch.Tensor:
        marginals = package.DependencyCRF(potentials, multiroot=False).marginals
        return torch.autograd.grad(marginals, potentials, gradient)[0]

    return run, from_torch_struct


def torch_struct_bracketings(inputs: Inputs) -> Prepared:
    import torch_struct as package

    potentials = inputs.spans.unsqueeze(-1).clone().requires_grad_()
    return (lambda: package.TreeCRF(potentials).marginals), lambda marginals: marginals.detach().squeeze(-1)


def torch_struct_segments(inputs: Inputs) -> Prepared:
    """
    Potentials are (batch, positions, lengths from 0 on, labels, previous labels); here the first segment has a
    predecessor, of any label, which has to be the first one.
    """
    import torch_struct as package

    potentials = torch.nn.functional.pad(inputs.segments.mT, (0, 0, 0, 0, 1, 0))
    potentials[:, 0, :, :, 1:] = -1e5
    potentials.requires_grad_()
    return (
        lambda: package.SemiMarkovCRF(potentials).marginals,
        lambda marginals: marginals.detach()[:, :, 1:].mT,
    )


# SuPar: our own format, heads for trees.


def supar(distribution: str, attribute: str) -> Callable[[Inputs], Prepared]:
    def prepare(inputs: Inputs) -> Prepared:
        import supar as package

        scores = inputs.scores.clone()

        def run() -> torch.Tensor:
            return getattr(getattr(package, distribution)(scores, multiroot=False), attribute)

        return run, (from_heads if attribute == "argmax" else lambda arcs: without_root_row(arcs.detach()))

    return prepare


def supar_gradient(inputs: Inputs) -> Prepared:
    import supar as package

    scores = inputs.scores.clone().requires_grad_()

    def run() -> torch.Tensor:
        marginals = package.DependencyCRF(scores, multiroot=False).marginals
        return torch.autograd.grad(marginals, scores, inputs.gradient)[0]

    return run, without_root_row


def supar_mst(multiroot: bool) -> Callable[[Inputs], Prepared]:
    def prepare(inputs: Inputs) -> Prepared:
        from supar.structs.fn import mst

        # It writes into illegal parts of the scores.
        scores = inputs.scores.clone()
        words = inputs.mask.clone()
        words[:, 0] = False
        return (lambda: mst(scores, words, multiroot)), from_heads

    return prepare


def allennlp_mst(inputs: Inputs) -> Prepared:
    energies = inputs.scores.transpose(1, 2).contiguous().numpy()

    def run() -> np.ndarray:
        return np.stack([decode_mst(energy, inputs.length + 1, has_labels=False)[0] for energy in energies])

    return run, lambda heads: from_heads(torch.from_numpy(heads).clamp(min=0))


def entmax_rows(inputs: Inputs) -> Prepared:
    from entmax import sparsemax

    rows = inputs.scores.flatten(0, 1)
    return (lambda: sparsemax(rows, dim=-1, k=10)), same


OPERATIONS = (
    Operation(
        "projective argmax",
        {
            OURS: our(lambda inputs: ProjectiveTree().argmax(inputs.scores, inputs.mask)),
            "torch-struct": torch_struct("DependencyCRF", "argmax"),
            "SuPar": supar("DependencyCRF", "argmax"),
        },
        score_difference,
        tolerance=1e-3,
    ),
    Operation(
        "projective marginals",
        {
            OURS: our(lambda inputs: ProjectiveTree().marginals(inputs.scores, inputs.mask)),
            "torch-struct": torch_struct("DependencyCRF", "marginals"),
            "SuPar": supar("DependencyCRF", "marginals"),
        },
        largest_difference,
    ),
    Operation(
        "gradient of marginals",
        {OURS: our_gradient, "torch-struct": torch_struct_gradient, "SuPar": supar_gradient},
        largest_difference,
        # Of numbers of the size of a sentence.
        tolerance=1e-2,
    ),
    Operation(
        "non-projective argmax, single root",
        {
            OURS: our(lambda inputs: NonprojectiveTree().argmax(inputs.scores, inputs.mask)),
            "SuPar": supar_mst(multiroot=False),
        },
        score_difference,
        tolerance=1e-3,
    ),
    Operation(
        "non-projective argmax, any number of roots",
        {
            OURS: our(lambda inputs: NonprojectiveTree(single_root=False).argmax(inputs.scores, inputs.mask)),
            "SuPar": supar_mst(multiroot=True),
            "AllenNLP": allennlp_mst,
        },
        score_difference,
        tolerance=1e-3,
    ),
    Operation(
        "matrix-tree marginals",
        {
            OURS: our(lambda inputs: NonprojectiveTree().marginals(inputs.scores, inputs.mask)),
            "torch-struct": torch_struct("NonProjectiveDependencyCRF", "marginals"),
            "SuPar": supar("MatrixTree", "marginals"),
        },
        largest_difference,
        # It adds 1e-5 to the weight of every arc.
        inexact=("torch-struct",),
    ),
    Operation(
        "row simplex projection",
        {OURS: our(lambda inputs: project_simplex(inputs.scores.flatten(0, 1))), "entmax": entmax_rows},
        largest_difference,
    ),
    # There is no peer for this on PyPI.
    Operation("projective-tree projection, gap 1e-6", {OURS: our_projection}, largest_difference),
    Operation(
        "constituency-tree marginals",
        {
            OURS: our(lambda inputs: ConstituencyTree().marginals(inputs.spans, inputs.words)),
            "torch-struct": torch_struct_bracketings,
        },
        largest_difference,
    ),
    Operation(
        "semi-Markov marginals",
        {
            OURS: our(lambda inputs: SemiMarkov().marginals(inputs.segments, inputs.words)),
            "torch-struct": torch_struct_segments,
        },
        largest_difference,
    ),
)
ARGMAX, MARGINALS, GRADIENT, SINGLE_ROOT, MULTI_ROOT, MATRIX_TREE, SIMPLEX, PROJECTION, *_ = (
    operation.name for operation in OPERATIONS
)


class Bar(NamedTuple):
    """
    Ours must be `factor` times as fast as a rival, which takes as long as `stands_for` calls of `peer` for `of` (by
    default one call of the rival itself, for the same operation).
    """

    operation: str
    rival: str
    factor: float
    batch_size: int = 128
    peer: Optional[str] = None
    of: Optional[str] = None
    stands_for: float = 1.0


# shared/design/speed.md; 50 words. What is not on PyPI stands at the ratios to torch-struct and SuPar's HEAD that were
# measured there: HEAD, whose charts are faster than SuPar 1.1.4's, and lp-sparsemap.
BAR_LENGTH = 50
BARS = (
    Bar(ARGMAX, "torch-struct", 40),
    Bar(ARGMAX, "SuPar", 25),
    Bar(ARGMAX, "SuPar HEAD", 25, peer="torch-struct", stands_for=75 / 119),
    Bar(MARGINALS, "torch-struct", 15),
    Bar(MARGINALS, "SuPar", 10),
    Bar(MARGINALS, "SuPar HEAD", 10, peer="torch-struct", stands_for=97 / 131),
    Bar(GRADIENT, "torch-struct", 15),
    Bar(GRADIENT, "SuPar", 10),
    Bar(SINGLE_ROOT, "SuPar", 60),
    Bar(SINGLE_ROOT, "AllenNLP", 100, of=MULTI_ROOT),
    Bar(MULTI_ROOT, "SuPar", 60),
    Bar(MULTI_ROOT, "AllenNLP", 100),
    Bar(MATRIX_TREE, "SuPar", 1),
    Bar(SIMPLEX, "entmax", 5),
    Bar(PROJECTION, "lp-sparsemap", 5, batch_size=32, peer="SuPar", of=ARGMAX, stands_for=45),
    Bar(PROJECTION, "lp-sparsemap", 5, batch_size=32, peer="torch-struct", of=ARGMAX, stands_for=1171 / 38),
)
MEMORY_BAR = 100e6


def installed(peer: str) -> bool:
    return importlib.util.find_spec(PEERS[peer][0]) is not None


def status(key: str) -> int:
    """A size in bytes from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise KeyError("MemAvailable")


def peak_memory(prepare: Callable[[Inputs], Prepared], batch_size: int, length: int) -> Dict[str, float]:
    """
    The most memory that one call holds beyond its inputs, its result included, in a process of its own: `bytes`, or
    `more_than` if there was not enough.

    # Parameters

    prepare : `Callable[[Inputs], Prepared]`
    batch_size, length : `int`
    """
    limit = int(0.8 * available_memory())
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def measure() -> None:
        run, _ = prepare(Inputs(batch_size, length))
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + limit,) * 2)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        try:
            result = run()
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error).lower():
                raise
            sender.send({"more_than": limit})
            return
        sender.send({"bytes": max(status("VmHWM") - before, 0)})
        del result

    process = multiprocessing.get_context("fork").Process(target=measure)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        # Killed.
        return {"more_than": limit}
    finally:
        process.join()


class Stopwatch:
    """
    Samples of one call's wall and CPU seconds. The call has been made before: compiled code is loaded by the first.
    """

    def __init__(self, run: Run, last: float) -> None:
        self.run = run
        if last < SLOW:
            begin = time.perf_counter()
            run()
            last = time.perf_counter() - begin
        self.calls = max(1, math.ceil(SHORTEST_SAMPLE / last))
        self.wall: List[float] = []
        self.cpu: List[float] = []

    def sample(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.calls):
            self.run()
        self.wall.append((time.perf_counter() - wall) / self.calls)
        self.cpu.append((time.process_time() - cpu) / self.calls)

    def milliseconds(self) -> Dict[str, Any]:
        return {
            "ms": 1e3 * statistics.median(self.wall),
            "cpu_ms": 1e3 * statistics.median(self.cpu),
            "samples": len(self.wall),
        }


def timed(run: Run) -> Tuple[Any, float]:
    begin = time.perf_counter()
    result = run()
    return result, time.perf_counter() - begin


def take_turns(runs: Dict[str, Tuple[Run, float]], budget: float) -> Dict[str, Dict[str, Any]]:
    """
    Median times by name: rounds in which each runs once, at least three, until `budget` seconds are spent.

    # Parameters

    runs : `Dict[str, Tuple[Run, float]]`
        Calls, and the seconds that their first took.
    budget : `float`
    """
    watches = {name: Stopwatch(*run) for name, run in runs.items()}
    begin, rounds = time.perf_counter(), 0
    while rounds < MIN_SAMPLES or time.perf_counter() - begin < budget:
        for watch in watches.values():
            watch.sample()
        rounds += 1
    return {name: watch.milliseconds() for name, watch in watches.items()}


def measure_cell(operation: Operation, batch_size: int, length: int, names: List[str], budget: float) -> Dict[str, Any]:
    """
    One operation on one size: times by implementation, and each peer's difference from our results.
    """
    inputs = Inputs(batch_size, length)
    runs, results = {}, {}
    for name in names:
        run, read = operation.implementations[name](inputs)
        result, seconds = timed(run)
        runs[name], results[name] = (run, seconds), read(result)
    differences = {
        name: operation.difference(inputs, results[OURS], result)
        for name, result in results.items()
        if name != OURS and name not in operation.inexact
    }
    times = take_turns(runs, budget)
    return {
        "operation": operation.name,
        "batch_size": batch_size,
        "length": length,
        "times": times,
        "ratios": {name: times[name]["ms"] / times[OURS]["ms"] for name in times if name != OURS},
        "differences": differences,
        "agree": all(difference <= operation.tolerance for difference in differences.values()),
    }


def growth(operation: Operation, batch_sizes: List[int], lengths: List[int], budget: float) -> Dict[str, Any]:
    """
    Our times and memory over a grid, and the exponents of the least-squares fit `time ~ length^a batch_size^b`.
    """
    cells = []
    for batch_size in batch_sizes:
        for length in lengths:
            run, _ = operation.implementations[OURS](Inputs(batch_size, length))
            times = take_turns({OURS: (run, timed(run)[1])}, budget)[OURS]
            memory = peak_memory(operation.implementations[OURS], batch_size, length)
            cells.append({"batch_size": batch_size, "length": length, **times, "memory": memory})
            print(f"{operation.name}, B {batch_size}, n {length}: {times['ms']:.3g} ms", flush=True)
    logs = np.log([(cell["length"], cell["batch_size"]) for cell in cells])
    design = np.column_stack([logs, np.ones(len(cells))])

    def fit(values: List[float]) -> Dict[str, float]:
        (by_length, by_batch_size, _), *_ = np.linalg.lstsq(design, np.log(values), rcond=None)
        return {"length": by_length, "batch_size": by_batch_size}

    return {
        "operation": operation.name,
        "cells": cells,
        "time": fit([cell["ms"] for cell in cells]),
        "memory": fit([max(cell["memory"].get("bytes", math.nan), 1) for cell in cells]),
    }


def extremes(names: List[str]) -> List[Dict[str, Any]]:
    """
    Matrix-tree marginals where scores are large: the largest deviation of a word's marginals from a sum of 1.
    """
    operation = next(operation for operation in OPERATIONS if operation.name == MATRIX_TREE)
    rows = []
    for scale in (1, 10, 100, 1000):
        inputs = Inputs(8, 25)
        inputs.scores *= scale
        for name in names:
            try:
                run, read = operation.implementations[name](inputs)
                deviation = (read(run()).sum(-1)[:, 1:] - 1).abs().max().item()
            except RuntimeError as error:
                deviation, problem = math.nan, str(error).splitlines()[0]
            else:
                problem = None
            rows.append({"scale": scale, "implementation": name, "deviation": deviation, "error": problem})
    return rows


def judge(cells: List[Dict[str, Any]], memory: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The bars, with what was measured in `cells` and `memory`."""
    times = {
        (cell["operation"], cell["batch_size"], name): timing["ms"]
        for cell in cells
        if cell["length"] == BAR_LENGTH
        for name, timing in cell["times"].items()
    }
    judged = []
    for bar in BARS:
        peer = bar.peer or bar.rival
        ours = times.get((bar.operation, bar.batch_size, OURS))
        theirs = times.get((bar.of or bar.operation, bar.batch_size, peer))
        known = ours is not None and theirs is not None
        ratio = bar.stands_for * theirs / ours if known else None
        name = f"{bar.operation} against {bar.rival}, B {bar.batch_size}, n {BAR_LENGTH}"
        if bar.stands_for != 1:
            name += f" (as {bar.stands_for:.3g} calls of {peer}'s {bar.of or bar.operation})"
        judged.append(
            {
                "name": name,
                "required": f"{bar.factor:g}x",
                "measured": f"{ratio:.3g}x" if known else None,
                "met": ratio >= bar.factor if known else None,
            }
        )
    for entry in memory:
        if entry["operation"] in (MARGINALS, GRADIENT) and entry["implementation"] == OURS:
            at_bar = (entry["batch_size"], entry["length"]) == (128, 100)
            judged.append(
                {
                    "name": f"{entry['operation']}: extra memory, B 128, n 100",
                    "required": f"under {MEMORY_BAR / 1e6:.0f} MB",
                    "measured": megabytes(entry) if at_bar else None,
                    "met": entry.get("bytes", math.inf) < MEMORY_BAR if at_bar else None,
                }
            )
    return judged


def megabytes(entry: Dict[str, Any]) -> str:
    return f"{entry['bytes'] / 1e6:,.0f} MB" if "bytes" in entry else f"more than {entry['more_than'] / 1e9:.0f} GB"


def cells_table(operation: Operation, cells: List[Dict[str, Any]], names: List[str]) -> str:
    peers = names[1:]
    header = ["B", "n", "ours, ms", *(column for peer in peers for column in (f"{peer}, ms", "ratio"))]
    rows = []
    for cell in cells:
        if cell["operation"] == operation.name:
            row = [cell["batch_size"], cell["length"], f"{cell['times'][OURS]['ms']:.3g}"]
            for peer in peers:
                if peer in cell["times"]:
                    row += [f"{cell['times'][peer]['ms']:.3g}", f"{cell['ratios'][peer]:.3g}x"]
                else:
                    row += [None, None]
            rows.append(row)
    return table(header, rows)


def growth_tables(measured: List[Dict[str, Any]]) -> str:
    exponents = table(
        ["operation", "time in n", "time in B", "memory in n", "memory in B"],
        [
            [entry["operation"], *(f"{entry[what][by]:.2f}" for what in ("time", "memory") for by in entry[what])]
            for entry in measured
        ],
    )
    rows = [
        [entry["operation"], cell["batch_size"], cell["length"], f"{cell['ms']:.3g}", megabytes(cell["memory"])]
        for entry in measured
        for cell in entry["cells"]
    ]
    return exponents + "\n" + table(["operation", "B", "n", "ms", "extra memory"], rows)


def plot(cells: List[Dict[str, Any]], batch_size: int, path: Path) -> None:
    """Time against the number of words, both logarithmic, a panel for each operation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = dict(zip((OURS, *PEERS), ("black", "tab:red", "tab:blue", "tab:green", "tab:orange")))
    figure, axes = pyplot.subplots(2, 5, figsize=(17, 7), sharex=True, sharey=True, layout="constrained")
    for axis, operation in zip(axes.flat, OPERATIONS):
        for name in operation.implementations:
            points = [
                (cell["length"], cell["times"][name]["ms"])
                for cell in cells
                if cell["operation"] == operation.name and cell["batch_size"] == batch_size and name in cell["times"]
            ]
            if points:
                width = 2.2 if name == OURS else 1.3
                axis.loglog(*zip(*points), marker="o", markersize=4, linewidth=width, color=colors[name], label=name)
        lengths = sorted({cell["length"] for cell in cells})
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.minorticks_off()
        axis.set_title(operation.name, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.supxlabel("words in a sentence")
    figure.supylabel(f"milliseconds for {batch_size} sentences")
    figure.savefig(path)
    pyplot.close(figure)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each cell, beyond three rounds")
    parser.add_argument("--quick", action="store_true", help="a small grid, to see that all works")
    parser.add_argument("--out", type=Path, default=HERE, help="the directory to write to")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # What torch says of the peers' code.
    for message in ("(?s).*does not define `arg_constraints`", "Using a non-tuple sequence for multidimensional"):
        warnings.filterwarnings("ignore", message, UserWarning)
    if arguments.quick:
        batch_sizes, lengths, budget = [4], [5, 10], 0.0
        growing_batches, growing_lengths = [4, 8], [10, 20]
    else:
        batch_sizes, lengths, budget = [32, 128], [10, 25, 50, 100], arguments.budget
        growing_batches, growing_lengths = [32, 128, 512], [50, 100, 200]
    largest = max(batch_sizes), max(lengths)

    for peer, (_, distribution) in PEERS.items():
        if not installed(peer):
            print(
                f"{distribution} is not installed and left out; it comes with\n"
                '    .venv/bin/pip install -c requirements/constraints.txt -e ".[benchmarks]"'
            )
    present = {OURS, *filter(installed, PEERS)}
    names = {
        operation.name: [name for name in operation.implementations if name in present] for operation in OPERATIONS
    }

    # First, while the heap is small, but after code is loaded, which a first call does.
    memory = []
    for operation in OPERATIONS:
        for name in names[operation.name]:
            operation.implementations[name](Inputs(2, largest[1]))[0]()
            entry = peak_memory(operation.implementations[name], *largest)
            memory.append(
                {
                    "operation": operation.name,
                    "implementation": name,
                    "batch_size": largest[0],
                    "length": largest[1],
                    **entry,
                }
            )
            print(f"{operation.name}, {name}, B {largest[0]}, n {largest[1]}: {megabytes(entry)}", flush=True)
    too_large = {(entry["operation"], entry["implementation"]) for entry in memory if "bytes" not in entry}

    cells = []
    for operation in OPERATIONS:
        for batch_size in batch_sizes:
            for length in lengths:
                runnable = [
                    name
                    for name in names[operation.name]
                    if (batch_size, length) != largest or (operation.name, name) not in too_large
                ]
                cell = measure_cell(operation, batch_size, length, runnable, budget)
                cells.append(cell)
                ratios = "".join(f", {name} {ratio:.3g}x" for name, ratio in cell["ratios"].items())
                disagree = "" if cell["agree"] else f" RESULTS DIFFER: {cell['differences']}"
                took = cell["times"][OURS]["ms"]
                print(f"{operation.name}, B {batch_size}, n {length}: {took:.3g} ms{ratios}{disagree}", flush=True)
    grown = [
        growth(operation, growing_batches, growing_lengths, budget / 4)
        for operation in OPERATIONS
        if operation.name in (ARGMAX, MARGINALS)
    ]
    large = extremes(names[MATRIX_TREE])

    bars = judge(cells, memory)
    results = {
        "machine": machine(arguments.threads, [distribution for _, distribution in PEERS.values()]),
        "bars": bars,
        "cells": cells,
        "memory": memory,
        "growth": grown,
        "extremes": large,
    }
    differing = [cell for cell in cells if not cell["agree"]]
    sections = {
        "Bars": bars_table(bars) + ("" if differing else "\nIn every cell the results agree with the peers'.\n"),
        **{
            operation.name.capitalize(): cells_table(operation, cells, names[operation.name])
            for operation in OPERATIONS
        },
        "Extra memory of one call": table(
            ["operation", "implementation", "B", "n", "peak"],
            [[*list(entry.values())[:4], megabytes(entry)] for entry in memory],
        ),
        "Growth of ours": growth_tables(grown),
        "Matrix-tree marginals of large scores": table(
            ["scores times", "implementation", "largest deviation of a row's sum from 1"],
            [
                [entry["scale"], entry["implementation"], entry["error"] or f"{entry['deviation']:.1e}"]
                for entry in large
            ],
        ),
    }
    if differing:
        sections["Results that differ"] = table(
            ["operation", "B", "n", "differences"],
            [[cell["operation"], cell["batch_size"], cell["length"], cell["differences"]] for cell in differing],
        )
    write(arguments.out, "inference", "Structured inference and its peers", results, sections)
    if version("matplotlib") is None:
        print("matplotlib is not installed, so there is no plot")
    else:
        plot(cells, largest[0], arguments.out / "inference.svg")


if __name__ == "__main__":
    main()
