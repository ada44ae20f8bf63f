"""
The compiled route for dependency trees: all iterations for one sentence after the other, best trees included.
"""

from typing import Tuple

import numpy as np
import torch

from spigot_allennlp.functional.nonprojective.maximum import best_heads as best_nonprojective_heads
from spigot_allennlp.functional.projective.argmax import best_heads as best_projective_heads
from spigot_allennlp.functional.runtime import kernel, parallel_for, to_numpy
from spigot_allennlp.functional.sparsemap.active_set import (
    NO_VERTICES,
    CompiledOracle,
    Outcome,
    advance,
    grown,
    new_state,
    score_of,
)

# What a tree found in float32 must be better by than the projection, as a share of the sum of the absolute values of
# its parts: less may be rounding, and float64 is asked.
_ROUNDING_FLOAT32 = 1e-7


@kernel
def _with_room(array, size):
    """The array, or a copy with twice the rows that are asked for."""
    if size <= len(array):
        return array
    larger = np.empty((2 * size, *array.shape[1:]), array.dtype)
    for i, number in enumerate(array.flat):
        larger.flat[i] = number
    return larger


@kernel
def _set_tree(heads, tree):
    """The heads of ROOT and the words to the parts of `(dependents, heads)`."""
    for word in range(1, len(heads)):
        tree[word - 1] = word * len(heads) + heads[word]


@kernel
def _project_trees(
    points, lengths, projective, single_root, tolerance, max_iterations, outcome, start, stop
):  # fmt: skip
    """
    All iterations for the sentences from `start` to `stop`, one sentence after the other.

    # Parameters

    points : `np.ndarray`
        `(batch, tokens, tokens)`.
    lengths : `np.ndarray`
        `(batch,)`: the numbers of tokens, ROOT included.
    outcome : `Outcome`
        Output.

    # Returns

    `Tuple[np.ndarray, np.ndarray]`
        The active sets one after the other: `(vertices, S)`, parts, and `(vertices,)`, weights.
    """
    tokens = points.shape[1]
    rough_charts = np.empty((6, tokens, tokens + 16), dtype=np.float32)
    charts = np.empty((6, tokens, tokens + 8))
    heads = np.full(tokens, -1)
    # A word has the same place in every tree.
    member = np.empty(0, dtype=np.bool_)
    state = new_state(1, 16, max(tokens - 1, 1))
    # Not the literal, for which numba would compile all that it calls once more.
    only = np.int64(0)
    parts = np.empty((0, state.parts.shape[2]), dtype=np.int32)
    weights = np.empty(0)
    total = 0
    for row in range(start, stop):
        size = max(lengths[row], 1)
        point = points[row, :size, :size].copy().reshape(size * size)
        residual = point.copy()
        scores = residual.reshape(size, size)
        state.num_vertices[only] = 0
        state.value[only] = -np.inf
        state.gap[only] = 0.0
        state.refined[only] = state.converged[only] = False
        tree = np.full(max(size - 1, 1), -1, dtype=np.int32)
        for iteration in range(max_iterations + 1):
            outcome.iterations[row] = iteration
            last = iteration == max_iterations
            if not projective:
                best_nonprojective_heads(scores, single_root, heads[:size])
                _set_tree(heads[:size], tree)
            else:
                # Any tree that is better than the projection will do, up to the last, and float32 takes half the time.
                best_projective_heads(scores, single_root, rough_charts, heads[:size])
                _set_tree(heads[:size], tree)
                score, magnitude = score_of(residual, tree)
                better = score - state.value[only] > max(tolerance, _ROUNDING_FLOAT32 * magnitude)
                if last or not better:
                    best_projective_heads(scores, single_root, charts, heads[:size])
                    _set_tree(heads[:size], tree)
            _, num_vertices, max_parts = state.parts.shape
            if state.num_vertices[only] == num_vertices:
                state = grown(state, 2 * num_vertices, max_parts)
            if advance(state, only, point, tree, residual, tolerance, last, member):
                break
        outcome.gaps[row] = state.gap[only]
        outcome.converged[row] = state.converged[only]
        outcome.num_vertices[row] = state.num_vertices[only]
        parts = _with_room(parts, total + state.num_vertices[only])
        weights = _with_room(weights, total + state.num_vertices[only])
        for vertex in range(state.num_vertices[only]):
            parts[total] = -1
            for i in range(state.num_parts[only, vertex]):
                word, head = divmod(state.parts[only, vertex, i], size)
                parts[total, i] = word * tokens + head
            weights[total] = state.weights[only, vertex]
            total += 1
    return parts[:total], weights[:total]


class TreeOracle(CompiledOracle):
    """
    All dependency trees over points `(batch, dependents, heads)`.

    # Parameters

    mask : `torch.BoolTensor`
        `(batch, tokens)`: true for ROOT and the words, a prefix of each row.
    projective : `bool`
        Whether only projective trees count.
    single_root : `bool`
        Whether only trees with one word under ROOT count.
    """

    def __init__(self, mask: torch.Tensor, projective: bool, single_root: bool) -> None:
        self.lengths = to_numpy(mask.sum(-1))
        self.projective = projective
        self.single_root = single_root

    def iterate(
        self, points: np.ndarray, rows: slice, tolerance: float, max_iterations: int, outcome: Outcome
    ) -> Tuple[np.ndarray, np.ndarray]:
        kind = self.projective, self.single_root
        found = {}

        def run(start: int, stop: int) -> None:
            found[start] = _project_trees(
                points, self.lengths[rows], *kind, tolerance, max_iterations, outcome, start, stop
            )

        parallel_for(run, len(points))
        active_sets = [found[start] for start in sorted(found)] or [NO_VERTICES]
        parts, weights = zip(*active_sets, strict=True)
        return np.concatenate(parts), np.concatenate(weights)
