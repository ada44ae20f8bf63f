"""
The iterations for any argmax: each round asks for one vertex of all instances that are not finished.
"""

from typing import Callable, Tuple

import numpy as np
import torch

from spigot_allennlp.functional.runtime import kernel, parallel_for, to_numpy
from spigot_allennlp.functional.sparsemap.active_set import Outcome, advance, grown, new_state

Oracle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@kernel
def _advance_all(
    state, rows, points, candidates, residuals, tolerance, judge_only, finished, start, stop
):  # fmt: skip
    """`advance` for the instances `rows[start:stop]`."""
    member = np.zeros(points.shape[1], dtype=np.bool_)
    for k in range(start, stop):
        row = rows[k]
        finished[k] = advance(state, row, points[row], candidates[k], residuals[k], tolerance, judge_only, member)


def _part_indices(vertices: torch.Tensor) -> np.ndarray:
    """0/1 vertices `(batch, ...)` as part indices `(batch, S)`, -1 after the last; indices as they are."""
    if not (vertices.is_floating_point() or vertices.dtype == torch.bool):
        return to_numpy(vertices.int())
    rows, parts = np.nonzero(to_numpy(vertices).reshape(len(vertices), -1))
    counts = np.bincount(rows, minlength=len(vertices))
    indices = np.full((len(vertices), max(counts.max(), 1)), -1, dtype=np.int32)
    indices[rows, np.arange(len(rows)) - (counts.cumsum() - counts)[rows]] = parts
    return indices


def iterate_in_rounds(
    oracle: Oracle,
    device: torch.device,
    points: np.ndarray,
    rows: slice,
    tolerance: float,
    max_iterations: int,
    outcome: Outcome,
) -> Tuple[np.ndarray, np.ndarray]:
    """
    See `CompiledOracle.iterate`.

    # Parameters

    oracle : `Callable[[Tensor, LongTensor], Tensor]`
        The argmax; see `active_set`.
    device : `torch.device`
        Device that the oracle runs on.
    """
    batch_size, shape = len(points), points.shape[1:]
    points = points.reshape(batch_size, points[:1].size)

    def ask(scores: np.ndarray, unfinished: np.ndarray) -> np.ndarray:
        scores = torch.from_numpy(scores).view(-1, *shape).to(device)
        with torch.no_grad():
            return _part_indices(oracle(scores, torch.from_numpy(rows.start + unfinished).to(device)))

    unfinished, residuals = np.arange(batch_size), points.copy()
    candidates = ask(points, unfinished)
    state = new_state(batch_size, 16, candidates.shape[1])
    for iteration in range(max_iterations + 1):
        _, num_vertices, max_parts = state.parts.shape
        if candidates.shape[1] > max_parts:
            state = grown(state, num_vertices, candidates.shape[1])
        if iteration >= num_vertices and state.num_vertices.max() == num_vertices:
            state = grown(state, 2 * num_vertices, max_parts)
        finished = np.zeros(len(unfinished), dtype=np.bool_)
        batch = (state, unfinished, points, candidates, residuals)
        last = iteration == max_iterations
        parallel_for(
            lambda start, stop: _advance_all(*batch, tolerance, last, finished, start, stop),  # noqa: B023
            len(unfinished),
        )
        if finished.any():
            unfinished, residuals = unfinished[~finished], residuals[~finished]
        if not len(unfinished):
            break
        candidates = ask(residuals, unfinished)
        outcome.iterations[unfinished] += 1
    outcome.num_vertices[:], outcome.gaps[:], outcome.converged[:] = (
        state.num_vertices, state.gap, state.converged
    )  # fmt: skip
    active = np.arange(state.parts.shape[1]) < state.num_vertices[:, None]
    parts = state.parts[active]
    parts[np.arange(parts.shape[1]) >= state.num_parts[active][:, None]] = -1
    return parts, state.weights[active]
