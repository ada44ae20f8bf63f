"""
Exact Euclidean projection onto the convex hull of a set of structures that is known only through its argmax
(Niculae et al. 2018, SparseMAP), by the active-set method (Nocedal & Wright 2006, algorithm 16.3; Wolfe 1976
for this case).
"""

import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple, Optional

import numpy as np
import torch

from spigot_allennlp.functional import _eisner_kernels, _spanning_tree_kernels
from spigot_allennlp.functional.eisner import projective_heads
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy
from spigot_allennlp.functional.spanning_tree import nonprojective_heads

Oracle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# A vertex whose part outside the affine hull of the others is smaller than this (squared) lies in that hull.
# The true value is a ratio of two integer determinants and far larger.
_DEPENDENT = 1e-9

# A duality gap below this share of the sum of the absolute values that it is computed from is rounding.
_ROUNDING = 1e-14

# What a tree found in float32 must be better by than the projection, as a share of the sum of the absolute values of
# its parts: less may be rounding, and float64 is asked.
_ROUNDING_FLOAT32 = 1e-7

# So many numbers of the point (16 MiB) are projected at once, which bounds the memory for active sets.
_CHUNK = 2**21


class ActiveSet(NamedTuple):
    """
    # Parameters

    projection : `torch.Tensor`
        `(batch, ...)`: the nearest point, in the dtype of the input.
    weights : `torch.Tensor`
        `(batch, vertices)`, float64: a distribution over affinely independent vertices whose mean is the
        projection; 0 where an instance has fewer. All 0 where an instance has no structure.
    parts : `torch.LongTensor`
        `(batch, vertices, parts)`: for each vertex the flat indices of the parts that it has, then -1.
    duality_gap : `torch.Tensor`
        `(batch,)`, float64: `max_{y in Y} <point - projection, y - projection>`, which bounds the squared
        distance to the exact projection.
    iterations : `torch.LongTensor`
        `(batch,)`: how often the argmax was asked for after the start.
    converged : `torch.BoolTensor`
        `(batch,)`: whether the duality gap is within the tolerance.
    """

    projection: torch.Tensor
    weights: torch.Tensor
    parts: torch.Tensor
    duality_gap: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor


class _State(NamedTuple):
    """
    What the kernels work on, for each instance; `V` vertices and `S` parts a vertex at most.

    With `G` the Gram matrix of the active vertices and `e` all ones, `M = G + e e^T` is positive definite if
    and only if they are affinely independent. `factor` is its Cholesky factor R (upper, `R^T R = M`). The
    nearest point of their affine hull has the weights `w = M^-1 (b + c e)` with `b_i = <point, y_i>` and c
    such that they sum to 1. So it is enough to carry along `R^-T e` and `R^-T b`.
    """

    parts: np.ndarray  # (B, V, S)
    num_parts: np.ndarray  # (B, V)
    num_vertices: np.ndarray  # (B,)
    weights: np.ndarray  # (B, V)
    factor: np.ndarray  # (B, V, V)
    ones: np.ndarray  # (B, V): R^-T e
    targets: np.ndarray  # (B, V): R^-T b
    offset: np.ndarray  # (B,): subtracted from all of b, against rounding
    value: np.ndarray  # (B,): <residual, projection>
    gap: np.ndarray  # (B,): the duality gap
    refined: np.ndarray  # (B,): whether `_refine` came last
    converged: np.ndarray  # (B,)


@kernel
def _new_state(batch_size, num_vertices, max_parts):
    return _State(
        np.empty((batch_size, num_vertices, max_parts), dtype=np.int32),
        np.zeros((batch_size, num_vertices), dtype=np.int32),
        np.zeros(batch_size, dtype=np.int64),
        np.zeros((batch_size, num_vertices)),
        np.empty((batch_size, num_vertices, num_vertices)),
        np.empty((batch_size, num_vertices)),
        np.empty((batch_size, num_vertices)),
        np.zeros(batch_size),
        np.zeros(batch_size),
        np.zeros(batch_size),
        np.zeros(batch_size, dtype=np.bool_),
        np.zeros(batch_size, dtype=np.bool_),
    )


@kernel
def _grown(state, num_vertices, max_parts):
    """The same state with room for more vertices, or for more parts a vertex."""
    batch_size = len(state.num_vertices)
    larger = _new_state(batch_size, num_vertices, max_parts)
    for row in range(batch_size):
        size = state.num_vertices[row]
        for i in range(size):
            larger.num_parts[row, i] = state.num_parts[row, i]
            for part in range(state.num_parts[row, i]):
                larger.parts[row, i, part] = state.parts[row, i, part]
            for j in range(i, size):
                larger.factor[row, i, j] = state.factor[row, i, j]
            larger.weights[row, i] = state.weights[row, i]
            larger.ones[row, i] = state.ones[row, i]
            larger.targets[row, i] = state.targets[row, i]
        larger.num_vertices[row] = size
        larger.offset[row] = state.offset[row]
        larger.value[row] = state.value[row]
        larger.gap[row] = state.gap[row]
        larger.refined[row] = state.refined[row]
        larger.converged[row] = state.converged[row]
    return larger


# The two loops below over slices, which LLVM vectorises: of indices that run from anywhere it must assume that they
# could count from the end.


@kernel
def _dot(a, b):
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel
def _subtract(target, multiple, source):
    for i in range(len(target)):
        target[i] -= multiple * source[i]


@kernel
def _count_common(state, row, parts, size, member, common):
    """How many of the first `size` of `parts` each active vertex has too; for `member` see `_append`."""
    if len(member) == 0:
        for vertex in range(len(common)):
            others = state.parts[row, vertex]
            count = np.int32(0)
            for i in range(size):
                count += np.int32(others[i] == parts[i])
            common[vertex] = count
        return
    for i in range(size):
        member[parts[i]] = True
    for vertex in range(len(common)):
        count = 0
        for i in range(state.num_parts[row, vertex]):
            count += member[state.parts[row, vertex, i]]
        common[vertex] = count
    for i in range(size):
        member[parts[i]] = False


@kernel
def _append(state, row, parts, target, member):
    """
    Make a vertex, given by its parts, the last active one of instance `row`: one more column of the Cholesky
    factor. Returns false, and changes nothing, if it is in the affine hull of the others. `member`: scratch,
    `(num_parts,)`, all false; of length 0 if a part has the same place in all vertices that have it.
    """
    position = state.num_vertices[row]
    factor = state.factor[row]
    column = np.empty(position)
    size = 0
    while size < len(parts) and parts[size] >= 0:
        size += 1
    _count_common(state, row, parts, size, member, column)
    column += 1.0

    # R^T column = (M's new column), and along with it R^-T e and R^-T b.
    square = 1.0 + size
    one = 1.0
    for i in range(position):
        entry = column[i] / factor[i, i]
        column[i] = entry
        square -= entry * entry
        one -= entry * state.ones[row, i]
        target -= entry * state.targets[row, i]
        _subtract(column[i + 1 :], entry, factor[i, i + 1 : position])
    if square < _DEPENDENT:
        return False
    pivot = np.sqrt(square)
    for i in range(position):
        factor[i, position] = column[i]
    factor[position, position] = pivot
    state.ones[row, position] = one / pivot
    state.targets[row, position] = target / pivot
    state.weights[row, position] = 0.0
    for i in range(size):
        state.parts[row, position, i] = parts[i]
    state.num_parts[row, position] = size
    state.num_vertices[row] += 1
    return True


@kernel
def _rotate(first, second, cosine, sine):
    for i in range(len(first)):
        upper, lower = first[i], second[i]
        first[i] = cosine * upper + sine * lower
        second[i] = cosine * lower - sine * upper


@kernel
def _remove(state, row, position):
    """Take one vertex out of the active set: Givens rotations restore the triangle of the Cholesky factor."""
    factor, ones, targets = state.factor[row], state.ones[row], state.targets[row]
    last = state.num_vertices[row] - 1
    for vertex in range(position, last):
        size = state.num_parts[row, vertex + 1]
        for i in range(size):
            state.parts[row, vertex, i] = state.parts[row, vertex + 1, i]
        state.num_parts[row, vertex] = size
        state.weights[row, vertex] = state.weights[row, vertex + 1]
    for i in range(last + 1):
        for j in range(max(position, i - 1), last):
            factor[i, j] = factor[i, j + 1]
    for i in range(position, last):
        # Now row i + 1 has an entry left of its diagonal, in column i.
        radius = np.sqrt(factor[i, i] ** 2 + factor[i + 1, i] ** 2)
        cosine, sine = factor[i, i] / radius, factor[i + 1, i] / radius
        _rotate(factor[i, i:last], factor[i + 1, i:last], cosine, sine)
        upper, lower = ones[i], ones[i + 1]
        ones[i], ones[i + 1] = cosine * upper + sine * lower, cosine * lower - sine * upper
        upper, lower = targets[i], targets[i + 1]
        targets[i], targets[i + 1] = cosine * upper + sine * lower, cosine * lower - sine * upper
    state.num_vertices[row] = last


@kernel
def _solve(state, row, right, total, solution):
    """`solution = M^-1 (R^T right + c e)` with c such that it sums to `total`."""
    size = state.num_vertices[row]
    ones = state.ones[row]
    product = 0.0
    square = 0.0
    for i in range(size):
        product += ones[i] * right[i]
        square += ones[i] * ones[i]
    shift = (total - product) / square
    for i in range(size - 1, -1, -1):
        value = right[i] + shift * ones[i] - _dot(state.factor[row, i, i + 1 : size], solution[i + 1 : size])
        solution[i] = value / state.factor[row, i, i]


@kernel
def _remove_weightless(state, row):
    for i in range(state.num_vertices[row] - 1, -1, -1):
        if state.weights[row, i] <= 0.0:
            _remove(state, row, i)


@kernel
def _descend(state, row):
    """
    Move to the nearest point of the affine hull of the active vertices or, where that is outside their convex
    hull, as far towards it as the hull goes, drop the vertices whose weight has become 0, and again. Returns
    false, and drops it, if the last vertex, new and so far without weight, would not get any: then the argmax
    that proposed it was better by nothing but rounding.
    """
    solution = np.empty(state.num_vertices[row])
    while True:
        size = state.num_vertices[row]
        weights = state.weights[row]
        _solve(state, row, state.targets[row], 1.0, solution)
        if weights[size - 1] == 0.0 and solution[size - 1] <= 0.0:
            _remove(state, row, size - 1)
            return False
        step = 1.0
        blocking = -1
        for i in range(size):
            if solution[i] <= 0.0:
                ratio = weights[i] / (weights[i] - solution[i])
                if ratio < step or blocking < 0:
                    step = ratio
                    blocking = i
        if blocking < 0:
            total = solution[:size].sum()
            for i in range(size):
                weights[i] = solution[i] / total
            return True
        for i in range(size):
            weights[i] += step * (solution[i] - weights[i])
        weights[blocking] = 0.0
        _remove_weightless(state, row)


@kernel
def _score(values, parts):
    """The sum of the parts' values, and of their absolute values."""
    score = 0.0
    magnitude = 0.0
    for part in parts:
        if part < 0:
            break
        score += values[part]
        magnitude += abs(values[part])
    return score, magnitude


@kernel
def _refine(state, row, residual):
    """
    Remove the rounding of the weights: at the nearest point of the affine hull all vertices have the same
    value in the residual, so what differs is the right side of the equations for what the weights lack.
    """
    size = state.num_vertices[row]
    right = np.empty(size)
    correction = np.empty(size)
    for vertex in range(size):
        right[vertex] = _score(residual, state.parts[row, vertex, : state.num_parts[row, vertex]])[0]
    right -= right[0]
    for i in range(size):
        right[i] /= state.factor[row, i, i]
        _subtract(right[i + 1 :], right[i], state.factor[row, i, i + 1 : size])
    weights = state.weights[row, :size]
    _solve(state, row, right, 1.0 - weights.sum(), correction)
    weights += correction
    _remove_weightless(state, row)


@kernel
def _residual(state, row, point, residual):
    """Fills in `residual = point - sum_i w_i y_i` and returns `<residual, sum_i w_i y_i>`."""
    residual[:] = 0.0
    for vertex in range(state.num_vertices[row]):
        weight = state.weights[row, vertex]
        for i in range(state.num_parts[row, vertex]):
            residual[state.parts[row, vertex, i]] += weight
    value = 0.0
    for part in range(len(residual)):
        projection = residual[part]
        residual[part] = point[part] - projection
        # The others may be forbidden: -inf.
        value += projection * residual[part] if projection > 0.0 else 0.0
    return value


class _Outcome(NamedTuple):
    """See `ActiveSet`; all `(B,)`."""

    num_vertices: np.ndarray
    gaps: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


@kernel
def _advance(state, row, point, candidate, residual, tolerance, judge_only, member):
    """
    One iteration for one instance: judge `candidate`, the argmax of its residual (of the point itself, where
    there is no vertex yet). Then take it into the active set and write the next residual, or return true if
    that was the last. `member`: scratch for `_append`.
    """
    score, magnitude = _score(residual, candidate)
    if state.num_vertices[row] == 0:
        if score == -np.inf:
            state.converged[row] = True
            return True
        state.offset[row] = score
    else:
        state.gap[row] = max(score - state.value[row], 0.0)
        state.converged[row] = state.gap[row] <= max(tolerance, _ROUNDING * magnitude)
        if state.converged[row] or judge_only:
            return True
    target = _score(point, candidate)[0] - state.offset[row]
    if _append(state, row, candidate, target, member) and _descend(state, row):
        state.refined[row] = False
    elif not state.refined[row]:
        _refine(state, row, residual)
        state.refined[row] = True
    else:
        return True
    state.value[row] = _residual(state, row, point, residual)
    return False


@kernel
def _advance_all(
    state, rows, points, candidates, residuals, tolerance, judge_only, finished, start, stop
):  # fmt: skip
    """`_advance` for the instances `rows[start:stop]`."""
    member = np.zeros(points.shape[1], dtype=np.bool_)
    for k in range(start, stop):
        row = rows[k]
        finished[k] = _advance(state, row, points[row], candidates[k], residuals[k], tolerance, judge_only, member)


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
    points, sizes, projective, single_root, initial, max_iterations, tolerance, outcome, start, stop
):  # fmt: skip
    """
    All iterations for the sentences from `start` to `stop`, one sentence after the other.

    # Parameters

    points : `np.ndarray`
        `(batch, tokens, tokens)`.
    sizes : `np.ndarray`
        `(batch,)`: the numbers of tokens with ROOT.
    initial : `np.ndarray`
        `(batch, S)`: the parts of vertices to start from, in ascending order; `(batch, 0)` for the argmax of the
        points.
    outcome : `_Outcome`
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
    state = _new_state(1, 16, max(tokens - 1, 1))
    # Not the literal, for which numba would compile all that it calls once more.
    only = np.int64(0)
    parts = np.empty((0, state.parts.shape[2]), dtype=np.int32)
    weights = np.empty(0)
    total = 0
    for row in range(start, stop):
        size = max(sizes[row], 1)
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
            if iteration == 0 and initial.shape[1] > 0:
                for word in range(1, size):
                    tree[word - 1] = word * size + initial[row, word - 1] % tokens
            elif not projective:
                _spanning_tree_kernels.best_heads(scores, single_root, heads[:size])
                _set_tree(heads[:size], tree)
            else:
                # Any tree that is better than the projection will do, up to the last, and float32 takes half the time.
                _eisner_kernels.best_heads(scores, single_root, rough_charts, heads[:size])
                _set_tree(heads[:size], tree)
                score, magnitude = _score(residual, tree)
                better = score - state.value[only] > max(tolerance, _ROUNDING_FLOAT32 * magnitude)
                if last or not better:
                    _eisner_kernels.best_heads(scores, single_root, charts, heads[:size])
                    _set_tree(heads[:size], tree)
            _, num_vertices, max_parts = state.parts.shape
            if state.num_vertices[only] == num_vertices:
                state = _grown(state, 2 * num_vertices, max_parts)
            if _advance(state, only, point, tree, residual, tolerance, last, member):
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


@kernel
def _add_vertices(firsts, parts, weights, totals):
    """`totals[row] += sum_i weights[i] y_i` over the vertices of each row."""
    for row in range(len(totals)):
        for vertex in range(firsts[row], firsts[row + 1]):
            for part in parts[vertex]:
                if part < 0:
                    break
                totals[row, part] += weights[vertex]


@kernel
def _span_coefficients(firsts, parts, vectors, coefficients, start, stop):
    """
    For each row, coefficients that sum to 0 of its vertices, those from `firsts[row]` to `firsts[row + 1]`:
    together they make the nearest point to the vector in the span of the vertices' differences.
    """
    member = np.zeros(vectors.shape[1], dtype=np.bool_)
    most = 1
    for row in range(start, stop):
        most = max(most, firsts[row + 1] - firsts[row])
    state = _new_state(1, most, parts.shape[1])
    for row in range(start, stop):
        state.num_vertices[0] = 0
        first, last = firsts[row], firsts[row + 1]
        for vertex in range(first, last):
            _append(state, 0, parts[vertex], _score(vectors[row], parts[vertex])[0], member)
        if first < last:
            _solve(state, 0, state.targets[0], 0.0, coefficients[first:last])


def _in_tasks(function: Callable, num_rows: int, *arguments) -> None:
    """Shares a kernel's rows among the threads."""
    parallel_for(lambda start, stop: function(*arguments, start, stop), num_rows)


def _part_indices(vertices: torch.Tensor) -> np.ndarray:
    """0/1 vertices `(batch, ...)` as part indices `(batch, S)`, -1 after the last; indices as they are."""
    if not (vertices.is_floating_point() or vertices.dtype == torch.bool):
        return to_numpy(vertices.int())
    rows, parts = np.nonzero(to_numpy(vertices).reshape(len(vertices), -1))
    counts = np.bincount(rows, minlength=len(vertices))
    indices = np.full((len(vertices), max(counts.max(), 1)), -1, dtype=np.int32)
    indices[rows, np.arange(len(rows)) - (counts.cumsum() - counts)[rows]] = parts
    return indices


class _HeadOracle:
    """See `head_oracle`. Both functions that it may be made of also have a compiled route, `_project_trees`."""

    def __init__(
        self,
        best_heads: Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor],
        mask: torch.Tensor,
        single_root: bool,
    ) -> None:
        self.best_heads = best_heads
        self.mask = mask
        self.single_root = single_root

    def __call__(self, scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        heads = self.best_heads(scores, self.mask[rows], self.single_root)
        first_arcs = torch.arange(heads.size(1), device=heads.device) * heads.size(1)
        # Without ROOT, so that the words' arcs come first and then the padding.
        return torch.where(heads >= 0, first_arcs + heads, -1)[:, 1:]


def head_oracle(
    best_heads: Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor],
    mask: torch.Tensor,
    single_root: bool,
) -> Oracle:
    """
    The oracle over dependency trees for points `(batch, dependents, heads)`. `active_set` does not call it, but
    iterates in compiled code, a sentence at a time.

    # Parameters

    best_heads : `Callable[[Tensor, BoolTensor, bool], LongTensor]`
        `projective_heads` or `nonprojective_heads`.
    mask : `torch.BoolTensor`
        `(batch, tokens)`.
    single_root : `bool`
    """
    return _HeadOracle(best_heads, mask, single_root)


def active_set(
    point: torch.Tensor,
    oracle: Oracle,
    max_iterations: int = 10_000,
    tolerance: float = 1e-9,
    initial: Optional[torch.Tensor] = None,
) -> ActiveSet:
    """
    `argmin_{m in conv(Y)} ||m - point||^2` for each instance of a batch, given `argmax_{y in Y} <scores, y>`.

    The projection is kept as the mean of a few vertices. As long as the argmax of the residual `point -
    projection` is better than the present vertices, it joins them; the projection moves to the nearest point
    of their affine hull, and those that would get a negative weight leave. This ends after finitely many
    iterations with the exact projection; it stops when the duality gap (see `ActiveSet`) is at most
    `tolerance`, an absolute number, as the parts are between 0 and 1 whatever the scale of the scores. (Where
    scores are so large that rounding them to float64 makes a larger gap, that is the tolerance.)

    # Parameters

    point : `torch.Tensor`
        `(batch, ...)`. Parts at `-inf` (or below -1e30) are forbidden: they are 0 in the projection and take
        no part in the distance. An instance all of whose structures are forbidden is projected to 0.
        `ValueError` if any number is NaN or +inf.
    oracle : `Callable[[Tensor, LongTensor], Tensor]`
        Called with float64 scores `(some, ...)` and the indices `(some,)` of the instances that they belong
        to; returns a best structure of each, either as 0/1 of the scores' shape or, cheaper, as a LongTensor
        `(some, S)` of the indices of its parts in the flattened instance, with -1 after the last.
    max_iterations : `int`, optional (default = `10_000`)
        At least 1. If it is reached, there is a warning, once for each place that calls, and `converged` is
        false.
    tolerance : `float`, optional (default = `1e-9`)
    initial : `torch.Tensor`, optional (default = the argmax of `point`)
        Feasible vertices to start from, in either of the oracle's forms.

    # Returns

    `ActiveSet`
    """
    solution = _project(point, oracle, max_iterations, tolerance, initial)
    counts, *outcome = solution.outcome
    active = np.arange(max(counts.max(initial=0), 1)) < counts[:, None]
    weights = np.zeros(active.shape)
    weights[active] = solution.weights
    parts = np.full((*active.shape, solution.parts.shape[1]), -1)
    parts[active] = solution.parts
    return ActiveSet(solution.projection, *(from_numpy(array, like=point) for array in (weights, parts, *outcome)))


class _Solution(NamedTuple):
    """What `ActiveSet` tells, with the vertices of all instances one after the other."""

    projection: torch.Tensor
    firsts: np.ndarray  # (B + 1,): where the vertices of each instance begin, and their number
    parts: np.ndarray  # (vertices, S)
    weights: np.ndarray  # (vertices,), all positive
    outcome: _Outcome


def _project(
    point: torch.Tensor,
    oracle: Oracle,
    max_iterations: int,
    tolerance: float,
    initial: Optional[torch.Tensor],
    keep_vertices: bool = True,
) -> _Solution:
    """See `active_set`. Without `keep_vertices` there are none in the result."""
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    if not (point < float("inf")).all():
        raise ValueError("the point to project contains NaN or +inf")
    trees = isinstance(oracle, _HeadOracle) and oracle.best_heads in (projective_heads, nonprojective_heads)
    iterate = _iterate_over_trees if trees else _iterate_in_rounds
    batch_size = len(point)
    initial_parts = None if initial is None else _part_indices(initial)
    projection = torch.empty(point.shape, dtype=point.dtype, device=point.device)
    outcome = _Outcome(*(np.zeros(batch_size, dtype) for dtype in (np.int64, np.float64, np.int64, np.bool_)))
    kept = []
    step = max(_CHUNK // max(point[:1].numel(), 1), 1)
    for start in range(0, max(batch_size, 1), step):
        rows = slice(start, start + step)
        points = point[rows].detach().double()
        points = to_numpy(points.masked_fill(points <= FORBIDDEN, -float("inf")))
        first = None if initial_parts is None else initial_parts[rows]
        part = _Outcome(*(array[rows] for array in outcome))
        parts, weights = iterate(points, oracle, rows, point.device, first, max_iterations, tolerance, part)
        mean = np.zeros((len(points), points[:1].size))
        _add_vertices(_firsts(part.num_vertices), parts, weights, mean)
        projection[rows] = torch.from_numpy(mean).view(points.shape)
        if keep_vertices:
            kept.append((parts, weights))
    if not outcome.converged.all():
        missed = ~outcome.converged
        _report(outcome.gaps[missed].max(), outcome.iterations[missed].max(), tolerance)
    if not keep_vertices:
        return _Solution(projection, np.zeros(batch_size + 1, np.int64), *_NO_VERTICES, outcome)

    firsts = _firsts(outcome.num_vertices)
    all_parts = np.full((firsts[-1], max(parts.shape[1] for parts, _ in kept)), -1, np.int32)
    vertex = 0
    for parts, _ in kept:
        all_parts[vertex : vertex + len(parts), : parts.shape[1]] = parts
        vertex += len(parts)
    return _Solution(projection, firsts, all_parts, np.concatenate([weights for _, weights in kept]), outcome)


_NO_VERTICES = np.empty((0, 0), dtype=np.int32), np.empty(0)


def _firsts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], counts.cumsum()])


def _iterate_over_trees(points, oracle, rows, device, initial, max_iterations, tolerance, outcome):
    """See `_project_trees`; the others' signature."""
    sizes = to_numpy(oracle.mask[rows].sum(-1))
    which = oracle.best_heads is projective_heads, oracle.single_root
    if initial is None:
        initial = np.empty((len(points), 0), dtype=np.int32)
    # In ascending order, the -1 at the end.
    initial = np.sort(initial.view(np.uint32), axis=-1).view(np.int32)
    found = {}

    def run(start: int, stop: int) -> None:
        found[start] = _project_trees(points, sizes, *which, initial, max_iterations, tolerance, outcome, start, stop)

    parallel_for(run, len(points))
    active_sets = [found[start] for start in sorted(found)] or [_NO_VERTICES]
    parts, weights = zip(*active_sets, strict=True)
    return np.concatenate(parts), np.concatenate(weights)


def _iterate_in_rounds(points, oracle, rows, device, initial, max_iterations, tolerance, outcome):
    """
    The iterations for any oracle: each round asks for one vertex of all instances that are not finished.

    # Parameters

    points : `np.ndarray`
        `(batch, ...)`.
    rows : `slice`
        Which of the oracle's instances they are.
    device : `torch.device`
        Where the oracle is asked.
    initial : `np.ndarray` or `None`
        `(batch, S)`: the parts of vertices to start from.
    outcome : `_Outcome`
        Output.

    # Returns

    `Tuple[np.ndarray, np.ndarray]`
        As `_project_trees`.
    """
    batch_size, shape = len(points), points.shape[1:]
    points = points.reshape(batch_size, points[:1].size)

    def ask(scores: np.ndarray, unfinished: np.ndarray) -> np.ndarray:
        scores = torch.from_numpy(scores).view(-1, *shape).to(device)
        with torch.no_grad():
            return _part_indices(oracle(scores, torch.from_numpy(rows.start + unfinished).to(device)))

    unfinished, residuals = np.arange(batch_size), points.copy()
    candidates = ask(points, unfinished) if initial is None else initial
    state = _new_state(batch_size, 16, candidates.shape[1])
    for iteration in range(max_iterations + 1):
        _, num_vertices, max_parts = state.parts.shape
        if candidates.shape[1] > max_parts:
            state = _grown(state, num_vertices, candidates.shape[1])
        if iteration >= num_vertices and state.num_vertices.max() == num_vertices:
            state = _grown(state, 2 * num_vertices, max_parts)
        finished = np.zeros(len(unfinished), dtype=np.bool_)
        batch = (state, unfinished, points, candidates, residuals)
        _in_tasks(_advance_all, len(unfinished), *batch, tolerance, iteration == max_iterations, finished)
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


_reported: set[tuple[str, int]] = set()


def _report(gap: float, iterations: int, tolerance: float) -> None:
    """Warn, once for each place outside this module that asks for projections."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    site = (frame.f_code.co_filename, frame.f_lineno)
    if site not in _reported:
        _reported.add(site)
        message = (
            f"SparseMAP stopped after {iterations} iterations at a duality gap of {gap:.3g} "
            f"(> {tolerance:.3g}): its result is not the exact projection. (Reported once for this caller.)"
        )
        warnings.warn_explicit(message, RuntimeWarning, *site)


class _Jacobian(torch.autograd.Function):
    """
    The Jacobian of the projection at a point whose active set is given: the orthogonal projection onto the
    span of the differences of its vertices (Niculae et al. 2018, section 4.2). Symmetric, hence its own
    backward pass; constant around almost every point, hence no gradient through the active set.
    """

    @staticmethod
    def forward(ctx, vectors, firsts, parts):
        ctx.save_for_backward(firsts, parts)
        flat = to_numpy(vectors.double()).reshape(len(vectors), vectors[:1].numel())
        vertices = to_numpy(firsts), to_numpy(parts)
        coefficients = np.zeros(len(parts))
        _in_tasks(_span_coefficients, len(flat), *vertices, flat, coefficients)
        product = np.zeros_like(flat)
        _add_vertices(*vertices, coefficients, product)
        return from_numpy(product, like=vectors, dtype=vectors.dtype).view(vectors.shape)

    @staticmethod
    def backward(ctx, gradient):
        return _Jacobian.apply(gradient, *ctx.saved_tensors), None, None


class _Projection(torch.autograd.Function):
    """Hands on a projection that is already computed and differentiates it with respect to the point."""

    @staticmethod
    def forward(ctx, point, projection, firsts, parts):
        ctx.save_for_backward(firsts, parts)
        return projection.clone()

    @staticmethod
    def backward(ctx, gradient):
        return _Jacobian.apply(gradient, *ctx.saved_tensors), None, None, None


def sparsemap_project(
    point: torch.Tensor,
    oracle: Oracle,
    max_iterations: int = 10_000,
    tolerance: float = 1e-9,
    initial: Optional[torch.Tensor] = None,
) -> torch.Tensor:
    """
    The projection of `active_set` (see there for the parameters), `(batch, ...)`, differentiable with respect
    to the point, any number of times. Parts that no active structure has get exactly 0 and exactly no
    gradient.
    """
    differentiable = point.requires_grad and torch.is_grad_enabled()
    solution = _project(point, oracle, max_iterations, tolerance, initial, keep_vertices=differentiable)
    if not differentiable:
        return solution.projection
    vertices = torch.from_numpy(solution.firsts), torch.from_numpy(solution.parts)
    return _Projection.apply(point, solution.projection, *vertices)
