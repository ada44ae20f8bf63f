"""
Kernels of `eisner.py`: Eisner's chart over the tokens of a sentence, ROOT at its left end.

A *complete* span `[h, e]` is the head `h` with everything that it governs on the side of `e`, as far as `e`;
`h < e` or `h > e`. An *incomplete* span `[h, m]` is the arc `h -> m` with all words in between. Both grow
from smaller ones:

    joined[i, j]     = sum over i <= r < j of  complete[i, r] * complete[j, r + 1]
    incomplete[h, m] = joined[h, m] * weight of the arc h -> m
    complete[h, e]   = sum over m in (h, e] of  incomplete[h, m] * complete[m, e]

Each tree has one derivation: `r` and `m` can be read off it. ROOT has no head, hence no span that ends at it;
a single root is a `joined[0, j]` without other words on ROOT's side (`r = 0`).

Every chart is stored both ways, `complete[h, e]` and `complete_t[e, h]`, so that all sums run over contiguous
cells, and the spans that end at `j` are finished before any that ends at `j + 1`, so that one of the two
operands stays in the fastest cache. The sentences of a batch lie side by side in lanes (`_lanes.py`): `order`
is `(blocks, width)`, the sentence in each lane or -1, best sorted by length. Words beyond a lane's sentence
have no arcs and govern nothing.
"""

import math

import numpy as np

from spigot_allennlp.functional._lanes import (
    BYTES,
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
    store_index,
    where_greater,
)
from spigot_allennlp.functional.runtime import FORBIDDEN


@lane_kernel
def _read(values, sentences, lengths, fill, lanes):
    """
    Copy the block's `(dependents, heads)` matrices into lanes, `fill` where there is no arc; row 0 is left
    alone. Returns the largest number of tokens.
    """
    tokens = 0
    for sentence in sentences:
        if sentence >= 0:
            tokens = max(tokens, lengths[sentence])
    for lane in range(len(sentences)):
        sentence = sentences[lane]
        length = lengths[sentence] if sentence >= 0 else 0
        for dependent in range(1, length):
            for head in range(length):
                lanes[dependent, head, lane] = values[sentence, dependent, head]
            lanes[dependent, dependent, lane] = fill
            lanes[dependent, length:tokens, lane] = fill
        for dependent in range(max(length, 1), tokens):
            lanes[dependent, :tokens, lane] = fill
    return tokens


@lane_kernel
def _subtract_maxima(scores, dependent, tokens):
    """
    Subtract the highest score of any head. Each word has one head, so the same constant leaves all trees: it
    costs no exactness, and saves it where scores are large. A word with no head at all keeps its forbidden
    arcs forbidden.
    """
    floor = splat(scores, FORBIDDEN)
    highest = splat(scores, FORBIDDEN / 2)
    for head in range(tokens):
        score = load(scores, dependent, head)
        highest = where_greater(score, highest, score, highest)
    for head in range(tokens):
        score = load(scores, dependent, head) - highest
        store(scores, dependent, head, where_greater(floor, score, floor, score))
    return highest


# ----------------------------------------------------------------------------------------------------------
# Argmax
# ----------------------------------------------------------------------------------------------------------


@lane_kernel
def _better(best, where, value, position):
    return where_greater(value, best, value, best), where_greater(value, best, position, where)


@lane_kernel
def argmax(scores, order, lengths, single_root, start, stop, charts, indices, heads):
    """
    The recurrences with (max, +) for the blocks from `start` to `stop`. Of equal spans the one with the
    lowest `r` or `m` wins.

    # Parameters

    charts, indices : `tuple`
        Four charts of floats and two of int16, to work in.
    heads : `np.ndarray`
        `(batch, tokens)`, output; written at the words only.
    """
    arcs, complete, complete_t, incomplete = charts
    split, outermost = indices
    zero = splat(arcs, 0.0)
    one = splat(arcs, 1.0)
    nothing = splat(arcs, -np.inf)
    stack = np.empty((2 * scores.shape[1] + 2, 2), np.int64)
    for token in range(scores.shape[1]):
        store(complete, token, token, zero)
        store(complete_t, token, token, zero)
    for block in range(start, stop):
        tokens = _read(scores, order[block], lengths, FORBIDDEN, arcs)
        for j in range(1, tokens):
            _subtract_maxima(arcs, j, tokens)
        for j in range(1, tokens):
            for i in range(j - 1, 0, -1):
                position = splat(arcs, i)
                joined, at = load(complete, j, i + 1), position
                right, right_at = nothing, position
                left, left_at = nothing, position
                for r in range(i + 1, j):
                    position = position + one
                    value = load(complete, i, r) + load(complete, j, r + 1)
                    joined, at = _better(joined, at, value, position)
                    value = load(incomplete, i, r) + load(complete_t, j, r)
                    right, right_at = _better(right, right_at, value, position)
                    value = load(incomplete, j, r) + load(complete_t, i, r)
                    left, left_at = _better(left, left_at, value, position)
                store_index(split, i, j, at)
                value = joined + load(arcs, j, i)
                store(incomplete, i, j, value)
                right, right_at = _better(right, right_at, value, position + one)
                store(complete, i, j, right)
                store(complete_t, j, i, right)
                store_index(outermost, i, j, right_at)
                value = joined + load(arcs, i, j)
                store(incomplete, j, i, value)
                left, left_at = _better(value, splat(arcs, i), left, left_at)
                store(complete, j, i, left)
                store(complete_t, i, j, left)
                store_index(outermost, j, i, left_at)
            position = zero
            joined, at = load(complete, j, 1), position
            right, right_at = nothing, position
            for r in range(1, j):
                position = position + one
                if not single_root:
                    value = load(complete, 0, r) + load(complete, j, r + 1)
                    joined, at = _better(joined, at, value, position)
                value = load(incomplete, 0, r) + load(complete_t, j, r)
                right, right_at = _better(right, right_at, value, position)
            store_index(split, 0, j, at)
            value = joined + load(arcs, j, 0)
            store(incomplete, 0, j, value)
            right, right_at = _better(right, right_at, value, position + one)
            store(complete, 0, j, right)
            store(complete_t, j, 0, right)
            store_index(outermost, 0, j, right_at)
        for lane in range(order.shape[1]):
            sentence = order[block, lane]
            if sentence < 0 or lengths[sentence] < 2:
                continue
            stack[0] = 0, lengths[sentence] - 1
            size = 1
            while size > 0:
                size -= 1
                head, end = stack[size]
                if head == end:
                    continue
                word = np.int64(outermost[head, end, lane])
                heads[sentence, word] = head
                low, high = min(head, word), max(head, word)
                r = np.int64(split[low, high, lane])
                stack[size] = word, end
                stack[size + 1] = low, r
                stack[size + 2] = high, r + 1
                size += 3


@lane_kernel
def best_heads(scores, single_root, charts, heads):
    """
    `argmax` for one sentence: for callers that have one at a time. The lanes are neighbouring spans of the same
    length, which do not depend on each other; all charts hold in `[length, i]` the span from `i` to
    `i + length`. Ties are broken as in `argmax`, but `r` and `m` are only looked for where the best tree needs
    them.

    # Parameters

    scores : `np.ndarray`
        `(tokens, tokens)` or larger, free of NaN.
    charts : `np.ndarray`
        `(6, tokens, tokens + 64 bytes)` or larger, to work in, with their precision. Spans beyond the sentence
        are written and read, but not for any span within.
    heads : `np.ndarray`
        `(tokens,)`, output; written at the words only.
    """
    tokens = len(heads)
    if tokens < 2:
        return
    # By the side of the head: that on the left governs to the right.
    arcs_right, arcs_left, incomplete_right, incomplete_left, right, left = (
        charts[0], charts[1], charts[2], charts[3], charts[4], charts[5]
    )  # fmt: skip
    for dependent in range(1, tokens):
        # As in `_subtract_maxima`.
        highest = FORBIDDEN / 2
        for head in range(tokens):
            if head != dependent:
                highest = max(highest, scores[dependent, head])
        for head in range(dependent):
            arcs_right[dependent - head, head] = max(scores[dependent, head] - highest, FORBIDDEN)
        for head in range(dependent + 1, tokens):
            arcs_left[head - dependent, dependent] = max(scores[dependent, head] - highest, FORBIDDEN)
    width = BYTES // charts.itemsize
    zero = splat(charts, 0.0)
    nothing = splat(charts, -np.inf)
    for i in range(0, tokens, width):
        store(right, 0, i, zero)
        store(left, 0, i, zero)
    for length in range(1, tokens):
        arcs_left[length, 0] = FORBIDDEN
        for i in range(0, tokens - length, width):
            joined = load(left, length - 1, i + 1)
            best_right, best_left = nothing, nothing
            for r in range(1, length):
                value = load(right, r, i) + load(left, length - 1 - r, i + r + 1)
                joined = where_greater(value, joined, value, joined)
                value = load(incomplete_right, r, i) + load(right, length - r, i + r)
                best_right = where_greater(value, best_right, value, best_right)
                value = load(incomplete_left, length - r, i + r) + load(left, r, i)
                best_left = where_greater(value, best_left, value, best_left)
            value = joined + load(arcs_right, length, i)
            store(incomplete_right, length, i, value)
            store(right, length, i, where_greater(value, best_right, value, best_right))
            value = joined + load(arcs_left, length, i)
            store(incomplete_left, length, i, value)
            store(left, length, i, where_greater(value, best_left, value, best_left))
        if single_root:
            # Nothing more is joined to ROOT's first word and what it governs.
            right[length, 0] = -np.inf

    stack = np.empty((2 * tokens + 2, 2), np.int64)
    stack[0] = 0, tokens - 1
    size = 1
    while size > 0:
        size -= 1
        head, end = stack[size]
        if head == end:
            continue
        highest = -np.inf
        if head < end:
            word = head + 1
            for m in range(head + 1, end + 1):
                value = incomplete_right[m - head, head] + right[end - m, m]
                if value > highest:
                    word, highest = m, value
        else:
            word = end
            for m in range(end, head):
                value = incomplete_left[head - m, m] + left[m - end, end]
                if value > highest:
                    word, highest = m, value
        heads[word] = head
        low, high = min(head, word), max(head, word)
        split, highest = low, -np.inf
        for r in range(low, 1 if low == 0 and single_root else high):
            value = right[r - low, low] + left[high - r - 1, r + 1]
            if value > highest:
                split, highest = r, value
        stack[size] = word, end
        stack[size + 1] = low, split
        stack[size + 2] = high, split + 1
        size += 3


# ----------------------------------------------------------------------------------------------------------
# Inside and outside
# ----------------------------------------------------------------------------------------------------------


@lane_kernel
def _weigh(scores, directions, tokens, weights, shifts):
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
        highest = _subtract_maxima(scores, dependent, tokens)
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
def _inside(weights, tokens, single_root, complete, complete_t, incomplete, incomplete_t):
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
    complete spans, `outer_joined` (symmetric) for joined ones. Marginals are those of arcs times their
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
def inside_outside(
    scores, directions, order, lengths, single_root, start, stop, limit, charts, buffers,
    log_partition, marginals, certified,
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
        tokens = _read(scores, order[block], lengths, FORBIDDEN, buffer)
        if tokens < 2:
            continue
        if directions is None:
            _weigh(buffer, None, tokens, weights, shifts)
        else:
            _read(directions, order[block], lengths, 0.0, direction_buffer)
            _weigh(buffer, direction_buffer, tokens, weights, shifts)
        _inside(weights, tokens, single_root, complete, complete_t, incomplete, incomplete_t)
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


# ----------------------------------------------------------------------------------------------------------
# Samples
# ----------------------------------------------------------------------------------------------------------


@lane_kernel
def _draw(left, left_row, right, right_row, shift, low, high, lane, uniform, weights):
    """An `x` from `[low, high)`, in proportion to `left[left_row, x] * right[right_row, x + shift]`."""
    top = -np.inf
    for x in range(low, high):
        exponent = left.exponent[left_row, x, lane] + right.exponent[right_row, x + shift, lane]
        top = max(top, exponent)
    total = 0.0
    for x in range(low, high):
        mantissa = left.mantissa[left_row, x, lane] * right.mantissa[right_row, x + shift, lane]
        exponent = left.exponent[left_row, x, lane] + right.exponent[right_row, x + shift, lane] - top
        weights[x] = math.ldexp(mantissa, np.int32(max(exponent, -2000.0)))
        total += weights[x]
    threshold = uniform * total
    chosen = low
    total = 0.0
    for x in range(low, high):
        if weights[x] > 0:
            chosen = x
            total += weights[x]
            if total > threshold:
                break
    return chosen


@lane_kernel
def sample(scores, order, lengths, single_root, start, stop, charts, buffer, uniforms, heads):
    """
    Trees from the Gibbs distribution, from the top of the inside chart down.

    # Parameters

    charts : `tuple`
        Five charts of `Extended` numbers, to work in, and `buffer`, one of plain lanes.
    uniforms : `np.ndarray`
        `(samples, batch, 2 * tokens)`: random numbers from [0, 1). A tree takes two for each arc.
    heads : `np.ndarray`
        `(samples, batch, tokens)`, output; written at the words only.
    """
    weights, complete, complete_t, incomplete, incomplete_t = charts
    width = order.shape[1]
    shifts = np.empty((scores.shape[1], 2, width), buffer.dtype)
    probabilities = np.empty(scores.shape[1])
    stack = np.empty((2 * scores.shape[1] + 2, 2), np.int64)
    for block in range(start, stop):
        tokens = _read(scores, order[block], lengths, FORBIDDEN, buffer)
        _weigh(buffer, None, tokens, weights, shifts)
        _inside(weights, tokens, single_root, complete, complete_t, incomplete, incomplete_t)
        for lane in range(width):
            sentence = order[block, lane]
            if sentence < 0 or lengths[sentence] < 2:
                continue
            for number in range(len(heads)):
                drawn = 0
                stack[0] = 0, lengths[sentence] - 1
                size = 1
                while size > 0:
                    size -= 1
                    head, end = stack[size]
                    if head == end:
                        continue
                    first = head + 1 if head < end else end
                    last = end + 1 if head < end else head
                    uniform = uniforms[number, sentence, drawn]
                    word = _draw(incomplete, head, complete_t, end, 0, first, last, lane, uniform, probabilities)
                    heads[number, sentence, word] = head
                    low, high = min(head, word), max(head, word)
                    last = 1 if low == 0 and single_root else high
                    uniform = uniforms[number, sentence, drawn + 1]
                    r = _draw(complete, low, complete, high, 1, low, last, lane, uniform, probabilities)
                    drawn += 2
                    stack[size] = word, end
                    stack[size + 1] = low, r
                    stack[size + 2] = high, r + 1
                    size += 3


# ----------------------------------------------------------------------------------------------------------
# The k best
# ----------------------------------------------------------------------------------------------------------


@lane_kernel(inline="always")
def _merge(left, left_cell, right, right_cell, offset, index, cell, best, back):
    """
    Add to the list of the k best in a cell of `best` the sums, plus `offset`, of any two from a cell of
    `left` and one of `right`; `back` keeps where they come from. Lists descend, and end in -inf where they
    are shorter.
    """
    i, j = cell
    left_i, left_j = left_cell
    right_i, right_j = right_cell
    k = best.shape[2]
    for a in range(k):
        for b in range(k):
            value = left[left_i, left_j, a] + right[right_i, right_j, b] + offset
            if not value > max(best[i, j, k - 1], FORBIDDEN / 2):
                if b == 0:
                    return
                break
            rank = k - 1
            while rank > 0 and best[i, j, rank - 1] < value:
                best[i, j, rank] = best[i, j, rank - 1]
                back[i, j, rank] = back[i, j, rank - 1]
                rank -= 1
            best[i, j, rank] = value
            back[i, j, rank] = index, a, b


@lane_kernel
def top_k(scores, lengths, single_root, k, start, stop, heads, values):
    """
    The k best trees of the sentences from `start` to `stop`, a list of k in each cell of the chart (Huang and
    Chiang 2005, algorithm 1, cut short by the order of the lists). Derivations are distinct trees.

    # Parameters

    heads, values : `np.ndarray`
        Outputs, written where there is a tree: `(batch, k, tokens)`, at the words only; `(batch, k)`.
    """
    tokens = scores.shape[1]
    joined = np.empty((tokens, tokens, k))
    complete = np.empty((tokens, tokens, k))
    joined_back = np.empty((tokens, tokens, k, 3), np.int64)
    complete_back = np.empty((tokens, tokens, k, 3), np.int64)
    stack = np.empty((2 * tokens + 2, 3), np.int64)
    for sentence in range(start, stop):
        length = lengths[sentence]
        arcs = scores[sentence]
        joined[:] = -np.inf
        complete[:] = -np.inf
        for token in range(tokens):
            complete[token, token, 0] = 0.0
        for j in range(1, length):
            for i in range(j - 1, -1, -1):
                for r in range(i, 1 if i == 0 and single_root else j):
                    _merge(complete, (i, r), complete, (j, r + 1), 0.0, r, (i, j), joined, joined_back)
                for m in range(i + 1, j + 1):
                    _merge(joined, (i, m), complete, (m, j), arcs[m, i], m, (i, j), complete, complete_back)
                if i > 0:
                    for m in range(i, j):
                        _merge(joined, (m, j), complete, (m, i), arcs[m, j], m, (j, i), complete, complete_back)
        for number in range(k):
            if length == 0 and number == 0:
                values[sentence, 0] = 0.0
            if length == 0 or complete[0, length - 1, number] == -np.inf:
                break
            values[sentence, number] = complete[0, length - 1, number]
            stack[0] = 0, length - 1, number
            size = 1
            while size > 0:
                size -= 1
                head, end, rank = stack[size]
                if head == end:
                    continue
                word, a, b = complete_back[head, end, rank]
                heads[sentence, number, word] = head
                low, high = min(head, word), max(head, word)
                r, a_left, a_right = joined_back[low, high, a]
                stack[size] = word, end, b
                stack[size + 1] = low, r, a_left
                stack[size + 2] = high, r + 1, a_right
                size += 3
