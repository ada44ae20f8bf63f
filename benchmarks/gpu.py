"""
Structured inference on a GPU: each operation's batched path beside the host route, to the CPU and back, and which of
them `spigot_allennlp.functional.routes` chooses, on random scores that lie on the GPU.

    python benchmarks/gpu.py

Writes `gpu.json` and `gpu.md` next to this file. Both routes take turns, and both results are compared with float64 on
the CPU. With `--device cpu` the batched paths run on the CPU, beside the kernels without copies: to see that all works,
not to measure.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List
from unittest import mock

import torch
from reporting import HERE, machine, table, write

from spigot_allennlp.functional import routes
from spigot_allennlp.functional.nonprojective import nonprojective_log_partition, nonprojective_marginals
from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.functional.projective import projective_heads, projective_marginals
from spigot_allennlp.functional.trees import arcs_from_heads

TOLERANCE = 1e-4
MIN_SAMPLES = 5


class Inputs:
    """`batch_size` sentences of `length` words, ROOT not counted."""

    def __init__(self, batch_size: int, length: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(batch_size * 1000 + length)
        shape = (batch_size, length + 1, length + 1)
        self.scores = torch.randn(shape, generator=generator).to(device)
        self.gradient = torch.randn(shape, generator=generator).to(device)
        self.mask = torch.ones(shape[:2], dtype=torch.bool, device=device)

    def exact(self) -> "Inputs":
        """The same in float64 on the CPU."""
        inputs = object.__new__(Inputs)
        inputs.scores, inputs.gradient = self.scores.cpu().double(), self.gradient.cpu().double()
        inputs.mask = self.mask.cpu()
        return inputs


def backward_of(function: Callable) -> Callable[[Inputs], Callable[[], torch.Tensor]]:
    def prepare(inputs: Inputs) -> Callable[[], torch.Tensor]:
        scores = inputs.scores.clone().requires_grad_()
        # Once, so that the backward pass alone is timed.
        marginals = function(scores, inputs.mask)
        return lambda: torch.autograd.grad(marginals, scores, inputs.gradient, retain_graph=True)[0]

    return prepare


def forward_of(function: Callable) -> Callable[[Inputs], Callable[[], torch.Tensor]]:
    return lambda inputs: lambda: function(inputs.scores, inputs.mask)


# By the names that the rule has for them.
OPERATIONS: Dict[str, Callable[[Inputs], Callable[[], torch.Tensor]]] = {
    "projective argmax": forward_of(projective_heads),
    "projective marginals": forward_of(projective_marginals),
    "gradient of projective marginals": backward_of(projective_marginals),
    "matrix-tree log-partition": forward_of(nonprojective_log_partition),
    "matrix-tree marginals": forward_of(nonprojective_marginals),
    "gradient of matrix-tree marginals": backward_of(nonprojective_marginals),
    "simplex projection": forward_of(lambda scores, mask: project_simplex(scores)),
}
ROUTES = {"batched": True, "host": False}


def error(inputs: Inputs, found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of two results, relative to the largest number if that is above 1; of trees, of scores."""
    found = found.detach().cpu()
    if not found.is_floating_point():
        scores = inputs.exact().scores
        found, expected = ((arcs_from_heads(heads, scores.dtype) * scores).sum((1, 2)) for heads in (found, expected))
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def measure(name: str, batch_size: int, length: int, device: torch.device, budget: float) -> Dict[str, Any]:
    inputs = Inputs(batch_size, length, device)
    expected = OPERATIONS[name](inputs.exact())().detach()

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    runs = {route: OPERATIONS[name](inputs) for route in ROUTES}
    times: Dict[str, List[float]] = {route: [] for route in ROUTES}
    errors = {}
    begin, rounds = time.perf_counter(), 0
    while rounds < MIN_SAMPLES + 1 or time.perf_counter() - begin < budget:
        for route, batched in ROUTES.items():
            with mock.patch.object(routes, "batched_on_device", lambda *_, batched=batched: batched):
                synchronize()
                start = time.perf_counter()
                result = runs[route]()
                synchronize()
                # The first round loads code and reserves memory.
                if rounds > 0:
                    times[route].append(1e3 * (time.perf_counter() - start))
                else:
                    errors[route] = error(inputs, result, expected)
        rounds += 1
    chosen = "batched" if routes.batched_on_device(name, inputs.scores) else "host"
    medians = {route: statistics.median(samples) for route, samples in times.items()}
    return {
        "operation": name,
        "batch_size": batch_size,
        "length": length,
        "ms": medians,
        "chosen": chosen,
        "fastest": min(medians, key=medians.get),
        "errors": errors,
        "exact": max(errors.values()) <= TOLERANCE,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="of torch; 'cpu' to see that all works")
    parser.add_argument("--threads", type=int, help="of the compiled kernels; torch's own number by default")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each cell, beyond five rounds")
    parser.add_argument("--quick", action="store_true", help="a small grid, to see that all works")
    parser.add_argument("--out", type=Path, default=HERE, help="the directory to write to")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; --device cpu runs the same code on the CPU")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    batch_sizes, lengths = ([4], [5, 10]) if arguments.quick else ([32, 128, 512], [10, 25, 50, 100])

    cells = []
    for name in OPERATIONS:
        for batch_size in batch_sizes:
            for length in lengths:
                cell = measure(name, batch_size, length, device, 0.0 if arguments.quick else arguments.budget)
                cells.append(cell)
                print(
                    f"{name}, B {batch_size}, n {length}: batched {cell['ms']['batched']:.3g} ms, "
                    f"host {cell['ms']['host']:.3g} ms, chosen: {cell['chosen']}, errors {cell['errors']}",
                    flush=True,
                )

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: the batched paths ran on the CPU"
    # A tenth is noise.
    slower = [cell for cell in cells if cell["ms"][cell["chosen"]] > 1.1 * cell["ms"]["host"]]
    results = {
        "machine": machine(torch.get_num_threads()),
        "device": where,
        "cuda": torch.version.cuda,
        "cells": cells,
    }
    rows = {
        name: [
            [
                *(cell["batch_size"], cell["length"]),
                *(f"{cell['ms'][route]:.3g}" for route in ROUTES),
                cell["chosen"],
                cell["fastest"],
                f"{max(cell['errors'].values()):.1e}",
            ]
            for cell in cells
            if cell["operation"] == name
        ]
        for name in OPERATIONS
    }
    largest = max(max(cell["errors"].values()) for cell in cells)
    missed = sum(cell["chosen"] != cell["fastest"] for cell in cells)
    verdict = (
        f"{where}. Largest error of any result against float64: {largest:.1e} (at most {TOLERANCE:g} is asked for). "
        f"Of {len(cells)} cells, what the rule chose is slower than the host route by more than a tenth in "
        f"{len(slower)}; "
        f"the other route is faster in {missed}.\n"
    )
    header = ["B", "n", "batched, ms", "host, ms", "chosen", "fastest", "error"]
    sections = {"Device": verdict, **{name.capitalize(): table(header, rows[name]) for name in OPERATIONS}}
    write(arguments.out, "gpu", "Structured inference on a GPU", results, sections)


if __name__ == "__main__":
    main()
