"""
Sums over all projective trees: the log-partition function, marginals, and their derivative.
"""

import math
from typing import Any, Callable, NamedTuple, Optional, Tuple

import numpy as np
import torch

from spigot_allennlp.functional import routes
from spigot_allennlp.functional.derivatives import MARGINALS_ONCE, last_derivative
from spigot_allennlp.functional.lanes import (
    Dual,
    Extended,
    add,
    constant,
    exponential_like,
    lane_kernel,
    load,
    mantissa_and_exponent,
    mark_beyond,
    multiply,
    multiply_add,
    normalise,
    number_like,
    plain,
    reciprocal,
    splat,
    store,
    where_greater,
)
from spigot_allennlp.functional.projective import batched
from spigot_allennlp.functional.projective.charts import chart, for_blocks, read, subtract_maxima
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, to_numpy
from spigot_allennlp.functional.trees import legal_arcs


@lane_kernel
def weigh(scores, directions, tokens, weights, shifts):
    """
    The weights of arcs, `exp(score)` up to one factor for each word, which `shifts[word]` keeps as (score,
    weight): each word has one head, so a factor changes no probability, and it is chosen to keep the charts
    near 1. Were all heads equally likely, n words would have about 6.75 ** n trees, hence 1 / 6.75 each;
    where they are not, the number of heads that count is (sum of p ** 0.5) ** 2, and 5.5 fits better (found
    by trying, on Gaussian scores and on confident ones). Nothing but speed depends on how well it fits.

    `directions` become the tangents of the scores, less their mean under the weights: a constant for all
    heads of a word has no effect but on rounding.
    """
    one = splat(scores, 1.0)
    for dependent in range(1, tokens):
        highest = subtract_maxima(scores, dependent, tokens)
        # Not 0, for a word without any arc.
        total = splat(scores, 1e-20)
        roots = splat(scores, 0.0)
        mean = splat(scores, 0.0)
        for head in range(tokens):
            score = load(scores, dependent, head)
            root = exponential_like(scores, score * splat(scores, 0.5), score)
            total = total + root * root
            roots = roots + root
            if directions is not None:
                mean = mean + root * root * load(directions, dependent, head)
        mean = mean / total
        factor = roots * roots / total * splat(scores, 1 / 5.5)
        factor = where_greater(one, factor, one, factor) / total
        scale = number_like(weights, factor)
        for head in range(tokens):
            score = load(scores, dependent, head)
            if directions is None:
                weight = exponential_like(weights, score, score)
            else:
                weight = exponential_like(weights, score, load(directions, dependent, head) - mean)
            store(weights, dependent, head, normalise(multiply(scale, weight)))
        store(shifts, dependent, 0, highest)
        store(shifts, dependent, 1, factor)


@lane_kernel
def inside(weights, tokens, single_root, complete, complete_t, incomplete, incomplete_t):
    zero = constant(weights, 0.0)
    one = constant(weights, 1.0)
    for token in range(tokens):
        store(complete, token, token, one)
        store(complete_t, token, token, one)
    for j in range(1, tokens):
        for i in range(j - 1, 0, -1):
            joined = load(complete, j, i + 1)
            right = zero
            left = zero
            for r in range(i + 1, j):
                joined = multiply_add(joined, load(complete, i, r), load(complete, j, r + 1))
                right = multiply_add(right, load(incomplete, i, r), load(complete_t, j, r))
                left = multiply_add(left, load(incomplete, j, r), load(complete_t, i, r))
            arc = normalise(multiply(joined, load(weights, j, i)))
            store(incomplete, i, j, arc)
            store(incomplete_t, j, i, arc)
            right = normalise(add(right, arc))
            store(complete, i, j, right)
            store(complete_t, j, i, right)
            arc = normalise(multiply(joined, load(weights, i, j)))
            store(incomplete, j, i, arc)
            store(incomplete_t, i, j, arc)
            left = normalise(add(left, arc))
            store(complete, j, i, left)
            store(complete_t, i, j, left)
        joined = load(complete, j, 1)
        right = zero
        for r in range(1, j):
            if not single_root:
                joined = multiply_add(joined, load(complete, 0, r), load(complete, j, r + 1))
            right = multiply_add(right, load(incomplete, 0, r), load(complete_t, j, r))
        arc = normalise(multiply(joined, load(weights, j, 0)))
        store(incomplete, 0, j, arc)
        store(incomplete_t, j, 0, arc)
        right = normalise(add(right, arc))
        store(complete, 0, j, right)
        store(complete_t, j, 0, right)


@lane_kernel
def _outside(
    weights, tokens, single_root, ends, goal, complete, complete_t, incomplete, incomplete_t,
    outer, outer_t, outer_joined, limit, marginals,
):  # fmt: skip
    """
    The derivatives of log(goal) with respect to every span, from the widest to the narrowest: `outer` for
    complete spans, `outer_joined` (symmetric) for joined ones. Marginals are the arcs' times their
    weights.

    Returns 0 in the lanes where no number reached `limit`, else 1.
    """
    zero = constant(weights, 0.0)
    inverse = reciprocal(goal)
    mark = splat(weights, 0.0)
    for j in range(tokens - 1, 0, -1):
        right = multiply(inverse, number_like(weights, load(ends, j, 0)))
        right_arc = zero
        for x in range(j + 1, tokens):
            if not single_root:
                right = multiply_add(right, load(outer_joined, 0, x), load(complete_t, j + 1, x))
            right_arc = multiply_add(right_arc, load(outer, 0, x), load(complete, j, x))
        right = normalise(right)
        store(outer, 0, j, right)
        store(outer_t, j, 0, right)
        right_arc = normalise(add(right_arc, right))
        joined = normalise(multiply(right_arc, load(weights, j, 0)))
        store(outer_joined, 0, j, joined)
        store(outer_joined, j, 0, joined)
        mark = mark_beyond(mark, load(complete, 0, j), limit)
        mark = mark_beyond(mark, right, limit)
        mark = mark_beyond(mark, right_arc, limit)
        store(marginals, j, 0, plain(multiply(right_arc, load(incomplete, 0, j))))
        for i in range(1, j):
            right = multiply(load(outer_t, j, 0), load(incomplete_t, i, 0))
            left = zero
            if i == 1 or not single_root:
                left = multiply(load(outer_joined, j, 0), load(complete_t, i - 1, 0))
            left_arc = zero
            for x in range(1, i):
                right = multiply_add(right, load(outer_t, j, x), load(incomplete_t, i, x))
                left = multiply_add(left, load(outer_joined, j, x), load(complete_t, i - 1, x))
                left_arc = multiply_add(left_arc, load(outer, j, x), load(complete, i, x))
            right_arc = zero
            for x in range(j + 1, tokens):
                right = multiply_add(right, load(outer_joined, i, x), load(complete_t, j + 1, x))
                left = multiply_add(left, load(outer_t, i, x), load(incomplete_t, j, x))
                right_arc = multiply_add(right_arc, load(outer, i, x), load(complete, j, x))
            right = normalise(right)
            store(outer, i, j, right)
            store(outer_t, j, i, right)
            left = normalise(left)
            store(outer, j, i, left)
            store(outer_t, i, j, left)
            right_arc = normalise(add(right_arc, right))
            left_arc = normalise(add(left_arc, left))
            joined = multiply(right_arc, load(weights, j, i))
            joined = normalise(multiply_add(joined, left_arc, load(weights, i, j)))
            store(outer_joined, i, j, joined)
            store(outer_joined, j, i, joined)
            mark = mark_beyond(mark, load(complete, i, j), limit)
            mark = mark_beyond(mark, load(complete, j, i), limit)
            mark = mark_beyond(mark, right, limit)
            mark = mark_beyond(mark, left, limit)
            mark = mark_beyond(mark, right_arc, limit)
            mark = mark_beyond(mark, left_arc, limit)
            store(marginals, j, i, plain(multiply(right_arc, load(incomplete, i, j))))
            store(marginals, i, j, plain(multiply(left_arc, load(incomplete, j, i))))
    return mark


@lane_kernel
def _inside_outside_kernel(
    scores, directions, order, lengths, single_root, limit, charts, buffers,
    log_partition, marginals, certified, start, stop,
):  # fmt: skip
    """
    Log-partition function and marginals or, if `charts` hold `Dual` numbers, the derivative of the marginals
    in the direction `directions`, for the blocks from `start` to `stop`.

    Plain floating point loses what falls below its smallest normal number `tiny`. A loss of `tiny` in one
    span changes the probability of anything by at most `tiny * outer[span]`, and one in `outer[span]` by at
    most `tiny * complete[span]`. So a sentence whose numbers all stay below `limit` loses at most `tiny *
    limit` in each of some n ** 3 sums, and it cannot have overflowed: that is what `certified` says. A
    sentence that is not must be done again with more range, finally in `Extended` numbers, which need no
    certificate (`limit` is infinite).

    # Parameters

    directions : `np.ndarray` or `None`
        `(batch, tokens, tokens)`, with `Dual` charts only.
    charts : `tuple`
        Eight charts of one kind, to work in.
    buffers : `tuple`
        Two charts of plain lanes, to work in; the second is only used with `directions`.
    log_partition, marginals, certified : `np.ndarray`
        Outputs, written for certified sentences with words: `(batch,)`, -inf if every tree has a forbidden
        arc; `(batch, tokens, tokens)`, left alone if so; `(batch,)`.
    """
    weights, complete, complete_t, incomplete, incomplete_t, outer, outer_t, outer_joined = charts
    buffer, direction_buffer = buffers
    width = order.shape[1]
    ends = np.empty((scores.shape[1], 1, width), buffer.dtype)
    shifts = np.empty((scores.shape[1], 2, width), buffer.dtype)
    summary = np.empty((1, 3, width), buffer.dtype)
    for block in range(start, stop):
        tokens = read(scores, order[block], lengths, FORBIDDEN, buffer)
        if tokens < 2:
            continue
        if directions is None:
            weigh(buffer, None, tokens, weights, shifts)
        else:
            read(directions, order[block], lengths, 0.0, direction_buffer)
            weigh(buffer, direction_buffer, tokens, weights, shifts)
        inside(weights, tokens, single_root, complete, complete_t, incomplete, incomplete_t)
        # Each lane's goal is the span from ROOT to its own last word.
        ends[:] = 0
        for lane in range(width):
            sentence = order[block, lane]
            if sentence >= 0 and lengths[sentence] > 1:
                ends[lengths[sentence] - 1, 0, lane] = 1
        goal = constant(weights, 0.0)
        for j in range(1, tokens):
            goal = multiply_add(goal, number_like(weights, load(ends, j, 0)), load(complete, 0, j))
        mantissa, exponent = mantissa_and_exponent(goal)
        store(summary, 0, 0, mantissa)
        store(summary, 0, 1, exponent)
        hope = limit == np.inf
        for lane in range(width):
            hope |= 1 / limit < summary[0, 0, lane] < limit
        if not hope:
            continue
        mark = _outside(
            weights, tokens, single_root, ends, goal, complete, complete_t, incomplete, incomplete_t,
            outer, outer_t, outer_joined, limit, buffer,
        )  # fmt: skip
        store(summary, 0, 2, mark)
        for lane in range(width):
            sentence = order[block, lane]
            if sentence < 0 or lengths[sentence] < 2:
                continue
            certified[sentence] = limit == np.inf or (
                summary[0, 2, lane] == 0 and 1 / limit < summary[0, 0, lane] < limit
            )
            if not certified[sentence]:
                continue
            value = math.log(summary[0, 0, lane]) + summary[0, 1, lane] * math.log(2.0)
            for dependent in range(1, lengths[sentence]):
                value += np.float64(shifts[dependent, 0, lane]) - math.log(shifts[dependent, 1, lane])
            if value <= FORBIDDEN / 2:
                log_partition[sentence] = -np.inf
                continue
            log_partition[sentence] = value
            for dependent in range(1, lengths[sentence]):
                for head in range(lengths[sentence]):
                    if head != dependent:
                        marginals[sentence, dependent, head] = buffer[dependent, head, lane]


def projective_log_partition(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    `log sum_y exp(<scores, y>)` over all projective trees `y`. Its gradient are the marginals; differentiable
    twice.

    # Returns

    `torch.Tensor`
        `(batch,)`: 0 for a row without words; -inf, with gradient 0, where every tree has a forbidden arc.
    """
    return _LogPartition.apply(scores, mask, single_root)


def projective_marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The probability of each arc under `p(y) = exp(<scores, y>) / Z` over all projective trees `y`: each word's
    row sums to 1. Differentiable once: the gradient is the product with the Hessian of `log Z`, found by
    running inside-outside on dual numbers, without an autograd graph through the chart.

    # Returns

    `torch.Tensor`
        `(batch, tokens, tokens)`; all 0 where every tree has a forbidden arc.
    """
    return _Marginals.apply(scores, mask, single_root)


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        log_partition, marginals = _inside_outside(scores, mask, single_root)
        ctx.single_root = single_root
        ctx.save_for_backward(scores, mask, marginals)
        return log_partition

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, mask, marginals = ctx.saved_tensors
        # A function of the scores, so that it can be differentiated, but one that is already known.
        marginals = _Marginals.apply(scores, mask, ctx.single_root, marginals)
        return gradient[:, None, None] * marginals, None, None


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: torch.Tensor,
        mask: torch.Tensor,
        single_root: bool,
        known: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        ctx.single_root = single_root
        ctx.save_for_backward(scores, mask)
        marginals = _inside_outside(scores, mask, single_root)[1] if known is None else known
        # Rounding makes no probability larger than 1. The gradient is taken at the exact ones.
        return marginals.clamp(0.0, 1.0)

    @staticmethod
    @last_derivative(MARGINALS_ONCE)
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, mask = ctx.saved_tensors
        # Whatever stands where there is no arc, NaN included, stays there.
        gradient = gradient.masked_fill(~legal_arcs(mask), 0.0)
        # Linear in the gradient, and of any scale: whatever its loss was multiplied by must not cost range.
        scale = gradient.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        derivative = _inside_outside(scores, mask, ctx.single_root, gradient / scale)[1]
        return derivative * scale, None, None, None


class _Arithmetic(NamedTuple):
    dtype: Any
    kind: Optional[Callable]
    # No number may reach it; see `_inside_outside_kernel`.
    limit: float


# From fast to certain. With these limits a million sums (100 words) lose less than one rounding error.
_FLOAT32, _FLOAT64 = (
    _Arithmetic(dtype, None, float(1e-6 * np.finfo(dtype).eps / np.finfo(dtype).tiny))
    for dtype in (np.float32, np.float64)
)
_EXTENDED = _Arithmetic(np.float64, Extended, np.inf)


def _inside_outside(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, direction: Optional[torch.Tensor] = None
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    `(batch,)`, the log-partition function, and `(batch, tokens, tokens)`, the marginals or, given a direction
    of the same shape, their derivative in this direction.
    """
    operation = "projective marginals" if direction is None else "gradient of projective marginals"
    if routes.batched_on_device(operation, scores):
        return batched.inside_outside(scores, mask, single_root, direction)
    results = _inside_outside_arrays(
        to_numpy(scores),
        None if direction is None else to_numpy(direction),
        to_numpy(mask.sum(-1)),
        single_root,
        *((_FLOAT32,) if scores.dtype == torch.float else ()),
        _FLOAT64,
        _EXTENDED,
    )
    return tuple(from_numpy(result, like=scores, dtype=scores.dtype) for result in results)


def _inside_outside_arrays(
    scores: np.ndarray,
    direction: Optional[np.ndarray],
    lengths: np.ndarray,
    single_root: bool,
    arithmetic: _Arithmetic,
    *more_certain: _Arithmetic,
) -> Tuple[np.ndarray, np.ndarray]:
    tokens = scores.shape[1]
    dtype = np.dtype(arithmetic.dtype)
    values = scores.astype(dtype, copy=False)
    directions = None if direction is None else direction.astype(dtype, copy=False)
    log_partition = np.zeros(len(values))
    marginals = np.zeros_like(values)
    certified = lengths < 2

    def run(order: np.ndarray, start: int, stop: int) -> None:
        kinds = [arithmetic.kind] if arithmetic.kind else []
        if directions is not None:
            kinds.insert(0, Dual)
        charts = tuple(chart(tokens, dtype, *kinds) for _ in range(8))
        buffers = chart(tokens, dtype), chart(tokens, dtype)
        _inside_outside_kernel(
            values, directions, order, lengths, single_root, arithmetic.limit, charts, buffers,
            log_partition, marginals, certified, start, stop,
        )  # fmt: skip

    for_blocks(run, lengths, dtype)
    failed = np.flatnonzero(~certified)
    if failed.size:
        log_partition[failed], marginals[failed] = _inside_outside_arrays(
            scores[failed],
            None if direction is None else direction[failed],
            lengths[failed],
            single_root,
            *more_certain,
        )
    return log_partition, marginals
