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

from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy

Oracle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# A vertex whose part outside the affine hull of the others is smaller than this (squared) lies in that hull.
# The true value is a ratio of two integer determinants and far larger.
_DEPENDENT = 1e-9

# A duality gap below this share of the sum of the absolute values that it is computed from is rounding.
_ROUNDING = 1e-14


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
    )


def _grown(state: _State, num_vertices: int, max_parts: int) -> _State:
    """The same state with room for more vertices, or for more parts a vertex."""
    old_batch, old_vertices, old_parts = state.parts.shape
    larger = _new_state(old_batch, num_vertices, max_parts)
    larger.parts[:, :old_vertices, :old_parts] = state.parts
    larger.factor[:, :old_vertices, :old_vertices] = state.factor
    larger.num_vertices[:] = state.num_vertices
    for name in ("num_parts", "weights", "ones", "targets"):
        getattr(larger, name)[:, :old_vertices] = getattr(state, name)
    return larger


@kernel
def _append(state, row, parts, target, member):
    """
    Make a vertex, given by its parts, the last active one of instance `row`: one more column of the Cholesky
    factor. Returns false, and changes nothing, if it is in the affine hull of the others. `member`: scratch,
    `(num_parts,)`, all false.
    """
    position = state.num_vertices[row]
    factor = state.factor[row]
    column = np.empty(position)
    size = 0
    while size < len(parts) and parts[size] >= 0:
        member[parts[size]] = True
        size += 1
    for vertex in range(position):
        common = 1
        for i in range(state.num_parts[row, vertex]):
            common += member[state.parts[row, vertex, i]]
        column[vertex] = common
    for i in range(size):
        member[parts[i]] = False

    # R^T column = (M's new column), and along with it R^-T e and R^-T b.
    square = 1.0 + size
    one = 1.0
    for i in range(position):
        entry = column[i] / factor[i, i]
        column[i] = entry
        square -= entry * entry
        one -= entry * state.ones[row, i]
        target -= entry * state.targets[row, i]
        for j in range(i + 1, position):
            column[j] -= entry * factor[i, j]
    if square < _DEPENDENT:
        return False
    pivot = np.sqrt(square)
    factor[:position, position] = column
    factor[position, position] = pivot
    state.ones[row, position] = one / pivot
    state.targets[row, position] = target / pivot
    state.weights[row, position] = 0.0
    state.parts[row, position, :size] = parts[:size]
    state.num_parts[row, position] = size
    state.num_vertices[row] += 1
    return True


@kernel
def _remove(state, row, position):
    """Take one vertex out of the active set: Givens rotations restore the triangle of the Cholesky factor."""
    factor, ones, targets = state.factor[row], state.ones[row], state.targets[row]
    last = state.num_vertices[row] - 1
    for vertex in range(position, last):
        size = state.num_parts[row, vertex + 1]
        state.parts[row, vertex, :size] = state.parts[row, vertex + 1, :size]
        state.num_parts[row, vertex] = size
        state.weights[row, vertex] = state.weights[row, vertex + 1]
    for i in range(last + 1):
        for j in range(max(position, i - 1), last):
            factor[i, j] = factor[i, j + 1]
    for i in range(position, last):
        # Now row i + 1 has an entry left of its diagonal, in column i.
        radius = np.hypot(factor[i, i], factor[i + 1, i])
        cosine, sine = factor[i, i] / radius, factor[i + 1, i] / radius
        for j in range(i, last):
            upper, lower = factor[i, j], factor[i + 1, j]
            factor[i, j] = cosine * upper + sine * lower
            factor[i + 1, j] = cosine * lower - sine * upper
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
        value = right[i] + shift * ones[i]
        for j in range(i + 1, size):
            value -= state.factor[row, i, j] * solution[j]
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
            weights[:size] = solution[:size] / solution[:size].sum()
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
        for j in range(i + 1, size):
            right[j] -= right[i] * state.factor[row, i, j]
    weights = state.weights[row, :size]
    _solve(state, row, right, 1.0 - weights.sum(), correction)
    weights += correction
    _remove_weightless(state, row)


@kernel
def _residual(state, row, point, residual):
    """Fills in `residual = point - sum_i w_i y_i` and returns `<residual, sum_i w_i y_i>`."""
    residual[:] = point
    for vertex in range(state.num_vertices[row]):
        weight = state.weights[row, vertex]
        for i in range(state.num_parts[row, vertex]):
            residual[state.parts[row, vertex, i]] -= weight
    value = 0.0
    for vertex in range(state.num_vertices[row]):
        size = state.num_parts[row, vertex]
        value += state.weights[row, vertex] * _score(residual, state.parts[row, vertex, :size])[0]
    return value


@kernel
def _iterate(
    state,
    rows,
    points,
    offsets,
    candidates,
    residuals,
    values,
    gaps,
    refined,
    converged,
    tolerance,
    judge_only,
    finished,
    start,
    stop,
):
    """
    One iteration for the instances `rows[start:stop]`: judge the argmax `candidates` of their `residuals`,
    whose value at the present projection is `values`; then finish, or take it into the active set and write
    the next residual.
    """
    member = np.zeros(points.shape[1], dtype=np.bool_)
    for k in range(start, stop):
        row = rows[k]
        score, magnitude = _score(residuals[k], candidates[k])
        if state.num_vertices[row] == 0:
            if score == -np.inf:
                converged[row] = finished[k] = True
                continue
            offsets[row] = score
        else:
            gaps[row] = max(score - values[row], 0.0)
            converged[row] = gaps[row] <= max(tolerance, _ROUNDING * magnitude)
            if converged[row] or judge_only:
                finished[k] = True
                continue
        target = _score(points[row], candidates[k])[0] - offsets[row]
        if _append(state, row, candidates[k], target, member) and _descend(state, row):
            refined[row] = False
        elif not refined[row]:
            _refine(state, row, residuals[k])
            refined[row] = True
        else:
            finished[k] = True
            continue
        values[row] = _residual(state, row, points[row], residuals[k])


@kernel
def _add_vertices(parts, weights, total):
    """`total[row] += sum_i weights[row, i] y_i`, for all rows."""
    for row in range(len(parts)):
        for vertex in range(parts.shape[1]):
            for part in parts[row, vertex]:
                if part < 0:
                    break
                total[row, part] += weights[row, vertex]


@kernel
def _span_coefficients(parts, weights, vectors, coefficients, start, stop):
    """
    For each row, coefficients that sum to 0 of the vertices of positive weight: together they make the
    nearest point to the vector in the span of the vertices' differences.
    """
    member = np.zeros(vectors.shape[1], dtype=np.bool_)
    _, num_vertices, max_parts = parts.shape
    state = _new_state(1, num_vertices, max_parts)
    for row in range(start, stop):
        state.num_vertices[0] = 0
        for vertex in range(num_vertices):
            if weights[row, vertex] > 0:
                target = _score(vectors[row], parts[row, vertex])[0]
                _append(state, 0, parts[row, vertex], target, member)
        if state.num_vertices[0] > 0:
            _solve(state, 0, state.targets[0], 0.0, coefficients[row])


def _in_tasks(function: Callable, num_rows: int, *arguments) -> None:
    """Shares a kernel's rows among the threads."""
    parallel_for(lambda start, stop: function(*arguments, start, stop), num_rows)


def _part_indices(vertices: torch.Tensor) -> np.ndarray:
    """0/1 vertices `(batch, ...)` as part indices `(batch, S)`, -1 after the last; indices as they are."""
    if not (vertices.is_floating_point() or vertices.dtype == torch.bool):
        return to_numpy(vertices)
    rows, parts = np.nonzero(to_numpy(vertices).reshape(len(vertices), -1))
    counts = np.bincount(rows, minlength=len(vertices))
    indices = np.full((len(vertices), max(counts.max(), 1)), -1)
    indices[rows, np.arange(len(rows)) - (counts.cumsum() - counts)[rows]] = parts
    return indices


def head_oracle(
    best_heads: Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor],
    mask: torch.Tensor,
    single_root: bool,
) -> Oracle:
    """
    The oracle over dependency trees for points `(batch, dependents, heads)`.

    # Parameters

    best_heads : `Callable[[Tensor, BoolTensor, bool], LongTensor]`
        `projective_heads` or `nonprojective_heads`.
    mask : `torch.BoolTensor`
        `(batch, tokens)`.
    single_root : `bool`
    """
    first_arcs = torch.arange(mask.size(1), device=mask.device) * mask.size(1)

    def oracle(scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        heads = best_heads(scores, mask[rows], single_root)
        # Without ROOT, so that the words' arcs come first and then the padding.
        return torch.where(heads >= 0, first_arcs + heads, -1)[:, 1:]

    return oracle


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
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    if not (point < float("inf")).all():
        raise ValueError("the point to project contains NaN or +inf")
    batch_size, shape = len(point), point.shape[1:]
    points = point.detach().double().masked_fill(point <= FORBIDDEN, -float("inf"))
    points = to_numpy(points).reshape(batch_size, shape.numel())

    def ask(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scores, rows = torch.from_numpy(scores).view(-1, *shape), torch.from_numpy(rows)
        with torch.no_grad():
            return _part_indices(oracle(scores.to(point.device), rows.to(point.device)))

    rows, residuals = np.arange(batch_size), points.copy()
    offsets, values, gaps = np.zeros((3, batch_size))
    refined, converged = np.zeros((2, batch_size), dtype=np.bool_)
    iterations = np.zeros(batch_size, dtype=np.int64)
    candidates = ask(points, rows) if initial is None else _part_indices(initial)
    state = _new_state(batch_size, 16, candidates.shape[1])
    for iteration in range(max_iterations + 1):
        _, num_vertices, max_parts = state.parts.shape
        if candidates.shape[1] > max_parts:
            state = _grown(state, num_vertices, candidates.shape[1])
        if iteration >= num_vertices and state.num_vertices.max() == num_vertices:
            state = _grown(state, 2 * num_vertices, max_parts)
        finished = np.zeros(len(rows), dtype=np.bool_)
        batch = (state, rows, points, offsets, candidates, residuals, values, gaps, refined, converged)
        how = (tolerance, iteration == max_iterations, finished)
        _in_tasks(_iterate, len(rows), *batch, *how)
        if finished.any():
            rows, residuals = rows[~finished], residuals[~finished]
        if not len(rows):
            break
        candidates = ask(residuals, rows)
        iterations[rows] += 1

    active = max(state.num_vertices.max(initial=0), 1)
    weights, parts = state.weights[:, :active], state.parts[:, :active].astype(np.int64)
    weights[np.arange(active) >= state.num_vertices[:, None]] = 0.0
    parts[np.arange(parts.shape[2]) >= state.num_parts[:, :active, None]] = -1
    parts[weights == 0] = -1
    projection = np.zeros_like(points)
    _add_vertices(parts, weights, projection)
    if not converged.all():
        _report(gaps[~converged].max(), iterations[~converged].max(), tolerance)
    return ActiveSet(
        from_numpy(projection, like=point, dtype=point.dtype).view(point.shape),
        *(from_numpy(array, like=point) for array in (weights, parts, gaps, iterations, converged)),
    )


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
    def forward(ctx, vectors, weights, parts):
        ctx.save_for_backward(weights, parts)
        flat = to_numpy(vectors.double()).reshape(len(vectors), vectors[:1].numel())
        numpy_weights, numpy_parts = to_numpy(weights), to_numpy(parts)
        coefficients = np.zeros(weights.shape)
        _in_tasks(_span_coefficients, len(flat), numpy_parts, numpy_weights, flat, coefficients)
        product = np.zeros_like(flat)
        _add_vertices(numpy_parts, coefficients, product)
        return from_numpy(product, like=vectors, dtype=vectors.dtype).view(vectors.shape)

    @staticmethod
    def backward(ctx, gradient):
        return _Jacobian.apply(gradient, *ctx.saved_tensors), None, None


class _Projection(torch.autograd.Function):
    """Hands on a projection that is already computed and differentiates it with respect to the point."""

    @staticmethod
    def forward(ctx, point, projection, weights, parts):
        ctx.save_for_backward(weights, parts)
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
    solution = active_set(point, oracle, max_iterations, tolerance, initial)
    return _Projection.apply(point, solution.projection, solution.weights, solution.parts)
