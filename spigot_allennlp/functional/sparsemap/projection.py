"""
Exact Euclidean projection onto the convex hull of a set of structures that is known only through its argmax
(Niculae et al. 2018, SparseMAP), by the active-set method.
"""

import functools
import sys
import warnings
from typing import NamedTuple, Set, Tuple, Union

import numpy as np
import torch

from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy
from spigot_allennlp.functional.sparsemap.active_set import (
    NO_VERTICES,
    CompiledOracle,
    Outcome,
    append,
    new_state,
    score_of,
    solve,
)
from spigot_allennlp.functional.sparsemap.rounds import Oracle, iterate_in_rounds

# So many numbers of the point (16 MiB) are projected at once, which bounds the memory for active sets.
_CHUNK = 2**21

# The duality gap to reach.
_TOLERANCE = 1e-9

# An instance that has taken so many iterations is left as it is, with a warning.
_MAX_ITERATIONS = 10_000


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
    state = new_state(1, most, parts.shape[1])
    for row in range(start, stop):
        state.num_vertices[0] = 0
        first, last = firsts[row], firsts[row + 1]
        for vertex in range(first, last):
            append(state, 0, parts[vertex], score_of(vectors[row], parts[vertex])[0], member)
        if first < last:
            solve(state, 0, state.targets[0], 0.0, coefficients[first:last])


def _firsts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], counts.cumsum()])


def active_set(point: torch.Tensor, oracle: Union[Oracle, CompiledOracle], tolerance: float = _TOLERANCE) -> ActiveSet:
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
    oracle : `Callable[[Tensor, LongTensor], Tensor]` or `CompiledOracle`
        Argmax. It is called with float64 scores `(some, ...)` and the indices `(some,)` of their instances;
        it returns a best structure of each, either as 0/1 of the scores' shape or, cheaper, as a LongTensor
        `(some, S)` of the indices of its parts in the flattened instance, with -1 after the last.
        A `CompiledOracle`, such as `TreeOracle`, is not called, but iterates in compiled code.
    tolerance : `float`, optional (default = `1e-9`)
        Largest duality gap. An instance that has not reached it after 10,000 iterations is left as it is: `converged`
        is false, and there is a warning, once for each place that calls.

    # Returns

    `ActiveSet`
    """
    solution = _project(point, oracle, tolerance)
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
    outcome: Outcome


def _project(
    point: torch.Tensor,
    oracle: Union[Oracle, CompiledOracle],
    tolerance: float,
    keep_vertices: bool = True,
) -> _Solution:
    """See `active_set`. Without `keep_vertices` there are none in the result."""
    if not (point < float("inf")).all():
        raise ValueError("the point to project contains NaN or +inf")
    if isinstance(oracle, CompiledOracle):
        iterate = oracle.iterate
    else:
        iterate = functools.partial(iterate_in_rounds, oracle, point.device)
    batch_size = len(point)
    projection = torch.empty(point.shape, dtype=point.dtype, device=point.device)
    outcome = Outcome(*(np.zeros(batch_size, dtype) for dtype in (np.int64, np.float64, np.int64, np.bool_)))
    kept = []
    step = max(_CHUNK // max(point[:1].numel(), 1), 1)
    for start in range(0, max(batch_size, 1), step):
        rows = slice(start, start + step)
        points = point[rows].detach().double()
        points = to_numpy(points.masked_fill(points <= FORBIDDEN, -float("inf")))
        part = Outcome(*(array[rows] for array in outcome))
        parts, weights = iterate(points, rows, tolerance, _MAX_ITERATIONS, part)
        mean = np.zeros((len(points), points[:1].size))
        _add_vertices(_firsts(part.num_vertices), parts, weights, mean)
        projection[rows] = torch.from_numpy(mean).view(points.shape)
        if keep_vertices:
            kept.append((parts, weights))
    if not outcome.converged.all():
        missed = ~outcome.converged
        _report(outcome.gaps[missed].max(), outcome.iterations[missed].max(), tolerance)
    if not keep_vertices:
        return _Solution(projection, np.zeros(batch_size + 1, np.int64), *NO_VERTICES, outcome)

    firsts = _firsts(outcome.num_vertices)
    all_parts = np.full((firsts[-1], max(parts.shape[1] for parts, _ in kept)), -1, np.int32)
    vertex = 0
    for parts, _ in kept:
        all_parts[vertex : vertex + len(parts), : parts.shape[1]] = parts
        vertex += len(parts)
    return _Solution(projection, firsts, all_parts, np.concatenate([weights for _, weights in kept]), outcome)


_reported: Set[Tuple[str, int]] = set()


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
        parallel_for(lambda start, stop: _span_coefficients(*vertices, flat, coefficients, start, stop), len(flat))
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


def sparsemap_project(point: torch.Tensor, oracle: Union[Oracle, CompiledOracle]) -> torch.Tensor:
    """
    The projection of `active_set` (see there for the parameters) to a duality gap of 1e-9, `(batch, ...)`,
    differentiable with respect to the point, any number of times. Parts that no active structure has get exactly 0 and
    exactly no gradient.
    """
    differentiable = point.requires_grad and torch.is_grad_enabled()
    solution = _project(point, oracle, _TOLERANCE, keep_vertices=differentiable)
    if not differentiable:
        return solution.projection
    vertices = torch.from_numpy(solution.firsts), torch.from_numpy(solution.parts)
    return _Projection.apply(point, solution.projection, *vertices)
