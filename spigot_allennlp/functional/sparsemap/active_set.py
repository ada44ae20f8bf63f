"""
One iteration of the active-set method for the nearest point of a convex hull (Nocedal & Wright 2006, algorithm 16.3;
Wolfe 1976 for this case), as compiled kernels. They know vertices by their parts, and nothing of where they come from.
"""

import abc
from typing import NamedTuple, Tuple

import numpy as np

from spigot_allennlp.functional.runtime import kernel

# A vertex whose part outside the affine hull of the others is smaller than this (squared) lies in that hull.
# The true value is a ratio of two integer determinants and far larger.
_DEPENDENT = 1e-9

# A duality gap below this share of the sum of the absolute values that it is computed from is rounding.
_ROUNDING = 1e-14


class State(NamedTuple):
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
def new_state(batch_size, num_vertices, max_parts):
    return State(
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
def grown(state, num_vertices, max_parts):
    """The same state with room for more vertices, or for more parts a vertex."""
    batch_size = len(state.num_vertices)
    larger = new_state(batch_size, num_vertices, max_parts)
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


# The two loops below over slices, which LLVM vectorizes: of indices that run from anywhere it must assume that they
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
    """How many of the first `size` of `parts` each active vertex has too; for `member` see `append`."""
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
def append(state, row, parts, target, member):
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
def solve(state, row, right, total, solution):
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
        solve(state, row, state.targets[row], 1.0, solution)
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
def score_of(values, parts):
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
        right[vertex] = score_of(residual, state.parts[row, vertex, : state.num_parts[row, vertex]])[0]
    right -= right[0]
    for i in range(size):
        right[i] /= state.factor[row, i, i]
        _subtract(right[i + 1 :], right[i], state.factor[row, i, i + 1 : size])
    weights = state.weights[row, :size]
    solve(state, row, right, 1.0 - weights.sum(), correction)
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


class Outcome(NamedTuple):
    """What is known of each instance in the end, as in `ActiveSet`; all `(B,)`."""

    num_vertices: np.ndarray
    gaps: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


@kernel
def advance(state, row, point, candidate, residual, tolerance, judge_only, member):
    """
    One iteration for one instance: judge `candidate`, the argmax of its residual (of the point itself, where
    there is no vertex yet). Then take it into the active set and write the next residual, or return true if
    that was the last. `member`: scratch for `append`.
    """
    score, magnitude = score_of(residual, candidate)
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
    target = score_of(point, candidate)[0] - state.offset[row]
    if append(state, row, candidate, target, member) and _descend(state, row):
        state.refined[row] = False
    elif not state.refined[row]:
        _refine(state, row, residual)
        state.refined[row] = True
    else:
        return True
    state.value[row] = _residual(state, row, point, residual)
    return False


class CompiledOracle(abc.ABC):
    """
    The vertices of a set for which all iterations run in compiled code, where `active_set` would else ask for an argmax
    in each.
    """

    @abc.abstractmethod
    def iterate(
        self, points: np.ndarray, rows: slice, tolerance: float, max_iterations: int, outcome: Outcome
    ) -> Tuple[np.ndarray, np.ndarray]:
        """
        # Parameters

        points : `np.ndarray`
            `(batch, ...)`, float64; forbidden parts are -inf.
        rows : `slice`
            The points' place among all instances.
        tolerance : `float`
            The duality gap to reach.
        max_iterations : `int`
            The number of iterations after which an instance is left as it is.
        outcome : `Outcome`
            Output.

        # Returns

        `Tuple[np.ndarray, np.ndarray]`
            The active sets one after the other: `(vertices, S)`, the flat indices of each vertex's parts, then -1, and
            `(vertices,)`, weights.
        """


NO_VERTICES = np.empty((0, 0), dtype=np.int32), np.empty(0)
