"""
Sums over all trees: the log-partition function, marginals, and their derivative.

The matrix-tree theorem without a subtraction. A word's heads are the steps of a random walk that goes
from a word to one of its heads with probability proportional to the arc's weight, and stops at ROOT.
Eliminating word k from the graph,

    p = sum_j w[k, j],    w[i, j] += w[i, k] * w[k, j] / p    (i, j left, i != j),

leaves the weights of the walk watched only outside k, and divides the sum over trees by p: this is
Gaussian elimination on the Laplacian, whose diagonal is never stored but summed anew (Grassmann, Taksar &
Heyman 1985), so that every number is a sum of products of positive numbers and has a small *relative*
error, whatever the condition of the Laplacian.

The marginal of an arc h -> d is proportional, over h, to w[d, h] * E[h, d], where E[h, d] is the
probability that the walk from h stops at ROOT without meeting d. The textbook's difference of two entries
of the inverse is that number, and cancels; eliminating all words but d gives it without a difference, and
dividing and conquering does that for all d in O(n^3).

A single root is the limit of weights t * w[d, ROOT] for t -> 0: the leading power of t is the sum over
trees with one arc from ROOT, and to leading order p leaves that arc out.

Gradients of marginals come from the same code with complex numbers: a positive number with an
infinitesimal imaginary part is a dual number (Squire & Trapp 1998), and sums of products of those are
stable too.

Numbers have two formats: plain ones, and the numbers of `extended.py` for weights that underflow.
The plain run checks each factor against `_TINY`, so that no product can have underflown, and gives up
otherwise.
"""

import math
from typing import Any, Callable, Optional, Tuple

import numpy as np
import torch

from spigot_allennlp.functional import routes
from spigot_allennlp.functional.derivatives import MARGINALS_ONCE, last_derivative
from spigot_allennlp.functional.extended import (
    LOG_RADIX,
    RADIX,
    ZERO_EXPONENT,
    add,
    add_multiple,
    normalise,
)
from spigot_allennlp.functional.lanes import exponentiate
from spigot_allennlp.functional.nonprojective.batched import matrix_tree
from spigot_allennlp.functional.nonprojective.maximum import ORDERED, maximum, read
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy

# No product of factors above it underflows in plain numbers.
_TINY = 1e-130
_LOG_TINY = math.log(_TINY)
# The exponent of the t above; every sum of real exponents stays well within it, and float64 holds the sum of both.
_ROOT_ORDER = 2.0**52

# The imaginary part that stands for an infinitesimal: its square is lost in rounding.
_INFINITESIMAL = 2.0**-50 * 1j


@kernel
def read_weights(scores, direction, unit, num_words, single_root, extended, weights, exponents):
    """
    Arc weights exp(score) (1 + unit * direction), each word's rescaled by its largest, which changes all
    trees alike. Words are numbered from 0 here and ROOT is the last column. With a single root, arcs from
    ROOT are rescaled separately.

    Returns the logarithm of the scale of a tree, which is NaN if a score is, and whether plain numbers can
    hold the weights.
    """
    n = num_words
    scale = 0.0
    safe = True
    undefined = False
    top_root = -np.inf
    # The rescaled scores, for now.
    logs = exponents
    for d in range(n):
        given = scores[d + 1, : n + 1]
        row = logs[d, : n + 1]
        for h in range(n):
            row[h] = given[h + 1]
        row[n] = given[0]
        row[d] = -np.inf
        for h in range(n + 1):
            undefined |= np.isnan(row[h])
            row[h] = row[h] if row[h] > FORBIDDEN else -np.inf
        top = maximum(row[: n if single_root else n + 1])
        if top > -np.inf:
            scale += top
            for h in range(n + 1):
                row[h] -= top
        top_root = max(top_root, row[n])
    if single_root and top_root > -np.inf:
        scale += top_root
        for d in range(n):
            logs[d, n] -= top_root
    # With room for whole lanes.
    padded = np.zeros((1, (n + 1 + 7) // 8 * 8))
    buffer = padded[0]
    for d in range(n):
        row = logs[d, : n + 1]
        if extended:
            # Not below where a tree's exponents could reach the order of an arc from ROOT: scores that are 2e17 / n
            # apart.
            lowest = -LOG_RADIX * _ROOT_ORDER / (4.0 * n)
            for h in range(n + 1):
                score = max(row[h], lowest)
                blocks = np.rint(score / LOG_RADIX)
                buffer[h] = score - blocks * LOG_RADIX
                row[h] = blocks if row[h] > -np.inf else ZERO_EXPONENT
            if single_root:
                row[n] -= _ROOT_ORDER
        else:
            lowest = 0.0
            for h in range(n + 1):
                lowest = min(lowest, row[h] if row[h] > -np.inf else 0.0)
                buffer[h] = max(row[h], _LOG_TINY)
                row[h] = ZERO_EXPONENT if row[h] == -np.inf else 0.0
            safe &= lowest > _LOG_TINY
        exponentiate(padded)
        target = weights[d, : n + 1]
        moves = direction[d + 1, : n + 1]
        for h in range(n):
            target[h] = buffer[h] * (1.0 + unit * moves[h + 1])
        target[n] = buffer[n] * (1.0 + unit * moves[0])
        for h in range(n + 1):
            if row[h] <= ZERO_EXPONENT:
                target[h] = 0.0
    return np.nan if undefined else scale, safe


@kernel(fastmath=ORDERED)
def _smallest(row):
    """The smallest positive number of a row, if there is one below 1."""
    smallest = 1.0
    for i in range(row.size):
        value = row[i].real
        smallest = min(smallest, value if value > 0.0 else 1.0)
    return smallest


# Words eliminated, and rows added up, together: spares loads and stores.
_BLOCK = 4


@kernel
def _add_product(target, column, factors, factor_column, rows, row_column, length):
    """
    target[:, column:][:, :length] += factors[:, factor_column:][:, :count] @ rows[:, row_column:][:,
    :length]
    """
    count = rows.shape[0]
    for start in range(0, count, _BLOCK):
        left = count - start
        row_0 = rows[start, row_column : row_column + length]
        row_1 = rows[start + (1 if left > 1 else 0), row_column : row_column + length]
        row_2 = rows[start + (2 if left > 2 else 0), row_column : row_column + length]
        row_3 = rows[start + (3 if left > 3 else 0), row_column : row_column + length]
        for i in range(target.shape[0]):
            given = factors[i, factor_column + start : factor_column + count]
            factor_0 = given[0]
            factor_1 = given[1] if left > 1 else 0.0 * factor_0
            factor_2 = given[2] if left > 2 else 0.0 * factor_0
            factor_3 = given[3] if left > 3 else 0.0 * factor_0
            result = target[i, column : column + length]
            for j in range(length):
                result[j] += factor_0 * row_0[j] + factor_1 * row_1[j] + factor_2 * row_2[j] + factor_3 * row_3[j]


@kernel
def _pass_on(graph, start, stop, first, last, size):
    """
    Eliminate the words `start` to `stop`, whose rows say where the walk from them first is outside, from
    the rows `first` to `last`.
    """
    if first < last:
        rows = graph[first:last]
        _add_product(rows, stop, rows, start, graph[start:stop], stop, size + 1 - stop)
        for i in range(first, last):
            graph[i, i] = 0.0


@kernel
def _eliminate(graph, num_gone, size, single_root, pivots):
    """
    Eliminate the first `num_gone` of `size` words. Their rows become the probabilities of where the walk
    from them first is among the others and ROOT (column `size`).

    Returns whether that succeeded: not if a word has no way to go on, or if there might be underflow.
    """
    for start in range(0, num_gone, _BLOCK):
        stop = min(start + _BLOCK, num_gone)
        for k in range(start, stop):
            row = graph[k, k + 1 : size + 1]
            pivot = 0.0 * row[0]
            for j in range(row.size - 1 if single_root else row.size):
                pivot += row[j]
            if not pivot.real > 0.0:
                return False
            pivots[k] = pivot.real
            inverse = 1.0 / pivot
            for j in range(row.size):
                row[j] *= inverse
            for i in range(start, stop):
                factor = graph[i, k]
                if i != k:
                    target = graph[i, k + 1 : size + 1]
                    for j in range(row.size):
                        target[j] += factor * row[j]
                    graph[i, i] = 0.0
        _pass_on(graph, start, stop, 0, start, size)
        _pass_on(graph, start, stop, stop, num_gone, size)
    _pass_on(graph, 0, num_gone, num_gone, size, size)
    # Factors stay where they were, and the numbers that they multiplied have grown at most. That is enough:
    # if a product was lost beside one that made a number grow, so it was in the results.
    for i in range(size):
        if _smallest(graph[i, : size + 1 if i < num_gone else num_gone]) < _TINY:
            return False
    return True


@kernel
def eliminate_extended(graph, graph_x, num_gone, size, pivots, pivots_x):
    """As above, in extended numbers."""
    for k in range(num_gone):
        row = graph[k, k + 1 : size + 1]
        row_x = graph_x[k, k + 1 : size + 1]
        pivot, pivot_x = row[0], row_x[0]
        for j in range(1, row.size):
            pivot, pivot_x = add(pivot, pivot_x, row[j], row_x[j])
        if not pivot.real > 0.0:
            return False
        pivots[k] = pivot.real
        pivots_x[k] = pivot_x
        inverse = 1.0 / pivot
        for j in range(row.size):
            row[j], row_x[j] = normalise(row[j] * inverse, row_x[j] - pivot_x)
        for i in range(size):
            if i != k and graph[i, k].real > 0.0:
                target, target_x = graph[i, k + 1 : size + 1], graph_x[i, k + 1 : size + 1]
                add_multiple(target, target_x, graph[i, k], graph_x[i, k], row, row_x)
                graph[i, i] = 0.0
                graph_x[i, i] = ZERO_EXPONENT
    return True


@kernel
def _rotate(graph, offset, size, turn, result):
    """
    Copy the graph of the words from `offset` on, the first `turn` of them moved after the others; ROOT
    stays last.
    """
    for i in range(size):
        source = graph[offset + (i + turn if i + turn < size else i + turn - size), offset : offset + size + 1]
        target = result[i, : size + 1]
        for j in range(size - turn):
            target[j] = source[j + turn]
        for j in range(turn):
            target[size - turn + j] = source[j]
        target[size] = source[size]


@kernel
def _join(work, gone, size, first_gone, first_kept, escape):
    """
    The rows of `escape` of eliminated words, from where their walks first are among those kept. Returns
    whether there cannot be underflow.
    """
    kept = size - gone
    rows = escape[first_gone : first_gone + gone]
    for i in range(gone):
        row = rows[i, first_kept : first_kept + kept]
        to_root = work[i, size]
        for j in range(kept):
            row[j] = to_root
    _add_product(rows, first_kept, work, gone, escape[first_kept : first_kept + kept], first_kept, kept)
    for i in range(gone):
        if _smallest(rows[i, first_kept : first_kept + kept]) < _TINY:
            return False
    return True


@kernel
def _join_extended(work, work_x, gone, size, first_gone, first_kept, escape, escape_x):
    """As above, in extended numbers."""
    end = first_kept + size - gone
    for i in range(gone):
        row = escape[first_gone + i, first_kept:end]
        row_x = escape_x[first_gone + i, first_kept:end]
        row[:] = work[i, size]
        row_x[:] = work_x[i, size]
        for j in range(size - gone):
            other = escape[first_kept + j, first_kept:end]
            other_x = escape_x[first_kept + j, first_kept:end]
            add_multiple(row, row_x, work[i, gone + j], work_x[i, gone + j], other, other_x)


@kernel
def _escape_probabilities(graphs, graphs_x, num_words, single_root, extended, escape, escape_x, pivots, pivots_x):
    """
    Fill `escape[h, d]`, the probability that the walk from h stops at ROOT without meeting d, in the graph
    `graphs[0]`. Returns whether that succeeded, as in `_eliminate`.

    By dividing and conquering (a loop over a stack: numba cannot cache recursive functions): each half of
    the words in turn is eliminated, which leaves a smaller problem for the other half in `graphs[level +
    1]`, and its rows then follow.
    """
    depth = graphs.shape[0]
    offsets, firsts, sizes, sides = np.zeros((4, depth), np.int64)
    sizes[0] = num_words
    level = 0
    while level >= 0:
        size, first, side = sizes[level], firsts[level], sides[level]
        if size == 1:
            escape[first, first] = 0.0
            escape_x[first, first] = ZERO_EXPONENT
            level -= 1
            continue
        if size == 2 and not extended:
            # What would come out, without the overhead that small problems suffer most from.
            graph, offset = graphs[level], offsets[level]
            for i in range(2):
                onward, to_root = graph[offset + i, offset + 1 - i], graph[offset + i, offset + 2]
                pivot = onward if single_root else onward + to_root
                if not pivot.real > 0.0:
                    return False
                chance = to_root / pivot
                if 0.0 < chance.real < _TINY:
                    return False
                escape[first + i, first + 1 - i] = chance
                escape[first + i, first + i] = 0.0
            level -= 1
            continue
        half = size // 2
        work, work_x = graphs[level + 1], graphs_x[level + 1]
        if side > 0:
            gone = half if side == 1 else size - half
            first_gone, first_kept = (first, first + half) if side == 1 else (first + half, first)
            if extended:
                _join_extended(work, work_x, gone, size, first_gone, first_kept, escape, escape_x)
            elif not _join(work, gone, size, first_gone, first_kept, escape):
                return False
            if side == 2:
                level -= 1
                continue
        gone = half if side == 0 else size - half
        _rotate(graphs[level], offsets[level], size, side * half, work)
        if extended:
            _rotate(graphs_x[level], offsets[level], size, side * half, work_x)
            possible = eliminate_extended(work, work_x, gone, size, pivots, pivots_x)
        else:
            possible = _eliminate(work, gone, size, single_root, pivots)
        if not possible:
            return False
        sides[level] += 1
        level += 1
        offsets[level] = gone
        firsts[level] = first + half if side == 0 else first
        sizes[level] = size - gone
        sides[level] = 0
    return True


@kernel
def _log_partitions_kernel(scores, lengths, single_root, results, start, stop):
    """Fill `results` (batch,); -inf where there is no tree."""
    most = max(lengths[start:stop].max() - 1, 0)
    graph, graph_x = np.empty((most, most + 1)), np.empty((most, most + 1))
    pivots, pivots_x = np.empty(most + 1), np.empty(most + 1)
    for b in range(start, stop):
        n = lengths[b] - 1
        if n < 1:
            results[b] = 0.0
            continue
        possible = False
        for extended in (False, True):
            scale, safe = read_weights(scores[b], scores[b], 0.0, n, single_root, extended, graph, graph_x)
            if extended:
                possible = eliminate_extended(graph, graph_x, n - 1, n, pivots, pivots_x)
            else:
                possible = safe and _eliminate(graph, n - 1, n, single_root, pivots)
            if possible or np.isnan(scale):
                break
        if not possible:
            results[b] = scale - np.inf
            continue
        pivots[n - 1] = graph[n - 1, n]
        pivots_x[n - 1] = graph_x[n - 1, n] if extended else 0.0
        result = scale
        exponent = 0.0
        for k in range(n):
            result += np.log(pivots[k])
            exponent += pivots_x[k] if extended else 0.0
        if extended and single_root:
            exponent += _ROOT_ORDER
        # Another arc from ROOT would be needed.
        if exponent < -0.5 * _ROOT_ORDER:
            result = -np.inf
        results[b] = result + exponent * LOG_RADIX


@kernel
def _largest_move(scores, direction, num_words):
    largest = 0.0
    for d in range(1, num_words + 1):
        for h in range(num_words + 1):
            if h != d and scores[d, h] > FORBIDDEN:
                largest = max(largest, abs(direction[d, h]))
    return largest if largest > 0.0 else 1.0


@kernel
def _marginals_kernel(scores, direction, unit, lengths, single_root, graphs, escape, results, start, stop):
    """
    Fill `results` (batch, tokens, tokens), given as zeros, which a sentence without a tree keeps.

    # Parameters

    unit : `float` or `complex`
        0 for the marginals. An infinitesimal imaginary number for their derivative as the scores move along
        `direction`.
    graphs, escape : working space
        `(levels, words, words + 1)` and `(words, words)`, of the type of `unit`.
    """
    graphs_x, escape_x = np.empty(graphs.shape), np.empty(escape.shape)
    pivots, pivots_x = np.empty(escape.shape[0]), np.empty(escape.shape[0])
    for b in range(start, stop):
        n = lengths[b] - 1
        if n < 1:
            continue
        result = results[b, : n + 1, : n + 1]
        step = unit
        if unit.imag > 0.0:
            step = unit / _largest_move(scores[b], direction[b], n)
        found = False
        for extended in (False, True):
            scale, safe = read_weights(scores[b], direction[b], step, n, single_root, extended, graphs[0], graphs_x[0])
            found = (safe or extended) and _escape_probabilities(
                graphs, graphs_x, n, single_root, extended, escape, escape_x, pivots, pivots_x
            )
            if found or np.isnan(scale):
                break
        if np.isnan(scale):
            result[1:] = np.nan
            continue
        if not found:
            continue
        root_arcs = 0.0
        for d in range(n):
            row, row_x = graphs[0, d], graphs_x[0, d]
            for h in range(n):
                row[h] *= escape[h, d]
            if extended:
                top = -np.inf
                for h in range(n + 1):
                    row[h], row_x[h] = normalise(row[h], row_x[h] + (escape_x[h, d] if h < n else 0.0))
                    if row[h].real > 0.0:
                        top = max(top, row_x[h])
                for h in range(n + 1):
                    row[h] *= RADIX ** max(row_x[h] - top, -3.0)
            total = row[n]
            for h in range(n):
                total += row[h]
            inverse = 1.0 / total if total.real > 0.0 else 0.0 * total
            for h in range(n + 1):
                row[h] *= inverse
            root_arcs += row[n].real
            target = result[d + 1]
            if unit.imag > 0.0:
                for h in range(n):
                    target[h + 1] = row[h].imag / step.imag
                target[0] = row[n].imag / step.imag
            else:
                for h in range(n):
                    target[h + 1] = row[h].real
                target[0] = row[n].real
        # No tree: some word has no way to ROOT, or a single root is asked for and cannot be had.
        if root_arcs == 0.0 or (single_root and root_arcs > 1.5):
            result[:] = 0.0


def _log_partitions_by_kernel(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> np.ndarray:
    """In float64."""
    values, lengths = read(scores, mask)
    results = np.empty(len(values))
    parallel_for(
        lambda start, stop: _log_partitions_kernel(values, lengths, single_root, results, start, stop),
        len(values),
    )
    return results


def marginals_by_kernel(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, direction: Optional[torch.Tensor] = None
) -> np.ndarray:
    """
    Marginals in float64; given a direction, their derivative as the scores move along it.
    """
    values, lengths = read(scores, mask)
    unit = 0.0 if direction is None else _INFINITESIMAL
    direction = values if direction is None else to_numpy(direction.double())
    dtype = np.asarray(unit).dtype
    results = np.zeros(values.shape)

    def run(start: int, stop: int) -> None:
        most = max(int(lengths[start:stop].max()) - 1, 0)
        graphs = np.empty((most.bit_length() + 2, most, most + 1), dtype)
        escape = np.empty((most, most), dtype)
        _marginals_kernel(values, direction, unit, lengths, single_root, graphs, escape, results, start, stop)

    parallel_for(run, len(values))
    return results


def _log_partitions(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
    """In the scores' type."""
    if routes.batched_on_device("matrix-tree log-partition", scores):
        results, _, certified = matrix_tree(scores, mask, single_root)
        return _mended(results, certified, _log_partitions_by_kernel, scores, mask, single_root)
    return from_numpy(_log_partitions_by_kernel(scores, mask, single_root), like=scores, dtype=scores.dtype)


def _marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool, *direction: torch.Tensor) -> torch.Tensor:
    """As `marginals_by_kernel`, in the scores' type."""
    operation = "gradient of matrix-tree marginals" if direction else "matrix-tree marginals"
    if routes.batched_on_device(operation, scores):
        _, results, certified = matrix_tree(scores, mask, single_root, *direction)
        return _mended(results, certified, marginals_by_kernel, scores, mask, single_root, *direction)
    return from_numpy(marginals_by_kernel(scores, mask, single_root, *direction), like=scores, dtype=scores.dtype)


def _mended(
    results: torch.Tensor,
    certified: torch.Tensor,
    by_kernel: Callable[..., np.ndarray],
    scores: torch.Tensor,
    mask: torch.Tensor,
    single_root: bool,
    *direction: torch.Tensor,
) -> torch.Tensor:
    """The results, replaced by the kernel's where they are not certified, in the scores' type."""
    rows = (~certified).nonzero().squeeze(-1)
    if len(rows):
        exact = by_kernel(scores[rows], mask[rows], single_root, *(each[rows] for each in direction))
        results = results.index_copy(0, rows, from_numpy(exact, like=scores))
    return results.to(scores.dtype)


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        ctx.save_for_backward(scores, mask)
        ctx.single_root = single_root
        # Rounding makes no probability larger than 1. The gradient is taken at the exact ones.
        return _marginals(scores, mask, single_root).clamp(0.0, 1.0)

    @staticmethod
    @last_derivative(MARGINALS_ONCE)
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[torch.Tensor, None, None]:
        # The Jacobian is the log-partition's Hessian, hence symmetric: its transpose times a vector is a
        # derivative along it.
        scores, mask = ctx.saved_tensors
        return _marginals(scores, mask, ctx.single_root, gradient), None, None


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        ctx.save_for_backward(scores, mask)
        ctx.single_root = single_root
        return _log_partitions(scores, mask, single_root)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[torch.Tensor, None, None]:
        scores, mask = ctx.saved_tensors
        marginals = nonprojective_marginals(scores, mask, ctx.single_root)
        return gradient[:, None, None] * marginals, None, None


def nonprojective_log_partition(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The logarithm of the sum over trees of the exponential of their scores, by the matrix-tree theorem (Koo
    et al. 2007), as an elimination without subtractions (Grassmann, Taksar & Heyman 1985), which is exact
    on ill-conditioned Laplacians. Twice differentiable.

    # Returns

    `torch.Tensor`
        `(batch,)`: 0 for a sentence without words, -inf for one without a tree.
    """
    return _LogPartition.apply(scores, mask, single_root)


def nonprojective_marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The probability of each arc under the Gibbs distribution over trees, the gradient of the log-partition,
    with the same exactness. Differentiable.

    # Returns

    `torch.Tensor`
        `(batch, tokens, tokens)`: each word's row adds up to 1; all zeros in a sentence without a tree.
    """
    return _Marginals.apply(scores, mask, single_root)
