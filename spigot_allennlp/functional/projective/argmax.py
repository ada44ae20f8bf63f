"""
The best projective tree.
"""

import numpy as np
import torch

from spigot_allennlp.functional import routes
from spigot_allennlp.functional.lanes import BYTES, lane_kernel, load, splat, store, store_index, where_greater
from spigot_allennlp.functional.projective import batched
from spigot_allennlp.functional.projective.charts import chart, for_blocks, read, subtract_maxima
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, to_numpy


@lane_kernel
def _better(best, where, value, position):
    return where_greater(value, best, value, best), where_greater(value, best, position, where)


@lane_kernel
def _argmax(scores, order, lengths, single_root, charts, indices, heads, start, stop):
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
        tokens = read(scores, order[block], lengths, FORBIDDEN, arcs)
        for j in range(1, tokens):
            subtract_maxima(arcs, j, tokens)
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
    `_argmax` for one sentence: for callers that have one at a time. The lanes are neighboring spans of the same
    length, which do not depend on each other; all charts hold in `[length, i]` the span from `i` to
    `i + length`. Ties are broken as in `_argmax`, but `r` and `m` are only looked for where the best tree needs
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
        # As in `subtract_maxima`.
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


def projective_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The projective tree with the highest sum of arc scores. Of several, always the same one.

    # Parameters

    scores : `torch.Tensor`
        `(batch, tokens, tokens)`, float32 or float64.
    mask : `torch.Tensor`
        `(batch, tokens)`, boolean.
    single_root : `bool`, optional (default = `True`)
        Whether exactly one word hangs on ROOT.

    # Returns

    `torch.Tensor`
        `(batch, tokens)`: the head of each word, -1 for ROOT and padding. Where every tree has a forbidden
        arc, a tree with as few of them as possible.
    """
    if routes.batched_on_device("projective argmax", scores):
        return batched.projective_heads(scores, mask, single_root)
    values, lengths = to_numpy(scores), to_numpy(mask.sum(-1))
    tokens = values.shape[1]
    heads = np.full(values.shape[:2], -1)

    def run(order: np.ndarray, start: int, stop: int) -> None:
        charts = tuple(chart(tokens, values.dtype) for _ in range(4))
        indices = tuple(chart(tokens, values.dtype, stored_as=np.int16) for _ in range(2))
        _argmax(values, order, lengths, single_root, charts, indices, heads, start, stop)

    for_blocks(run, lengths, values.dtype)
    return from_numpy(heads, like=scores)
