"""
The k best projective trees.
"""

from typing import Tuple

import numpy as np
import torch

from spigot_allennlp.functional.lanes import lane_kernel
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, parallel_for, to_numpy


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
def _top_k(scores, lengths, k, single_root, heads, values, start, stop):
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


def projective_top_k(
    scores: torch.Tensor, mask: torch.Tensor, k: int, single_root: bool = True
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The `k` best projective trees, distinct and from the best down.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor]`
        `(batch, k, tokens)`: heads, as `projective_heads` returns them, and `(batch, k)`: the trees' scores,
        without gradient. Where there are fewer than `k` trees without forbidden arcs, heads of -1 and scores
        of -inf.
    """
    values, lengths = to_numpy(scores.double()), to_numpy(mask.sum(-1))
    batch_size, tokens = values.shape[:2]
    heads = np.full((batch_size, k, tokens), -1)
    totals = np.full((batch_size, k), -np.inf)
    parallel_for(
        lambda start, stop: _top_k(values, lengths, k, single_root, heads, totals, start, stop),
        batch_size,
    )
    return from_numpy(heads, like=scores), from_numpy(totals, like=scores, dtype=scores.dtype)
