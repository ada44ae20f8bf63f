"""
The best trees: one, or k.
"""

from typing import Tuple

import numpy as np
import torch

from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy

# Minus infinity stays a value that compares as it should; only NaN is assumed away, which vectorizes the
# maxima.
ORDERED = {"nnan", "nsz"}

_UNSEEN, _ON_PATH, _DONE = 0, 1, 2


@kernel
def _read_arcs(scores, arcs):
    """
    `arcs[d, h]`: the score where the arc is allowed, else -inf (also for the diagonal, ROOT's row and NaN).
    """
    size = arcs.shape[0]
    arcs[0, :] = -np.inf
    for dependent in range(1, size):
        row = arcs[dependent]
        given = scores[dependent]
        for head in range(size):
            score = given[head]
            row[head] = min(score, -FORBIDDEN) if score > FORBIDDEN else -np.inf
        row[dependent] = -np.inf


@kernel(fastmath=ORDERED)
def maximum(row):
    best = -np.inf
    for i in range(row.size):
        best = max(best, row[i])
    return best


@kernel(fastmath=ORDERED)
def _maximum_arborescence(rows, single_root, heads, links, values):
    """
    Chu-Liu-Edmonds with Tarjan's path growing on a dense graph, in O(n^2).

    A node is a word or, from `size` on, a contracted cycle. `rows[v, h]` is the gain of the best arc from
    the original node `h` into `v`, over what the arcs inside `v` lose by it; rows of contracted nodes are
    kept, so that expansion finds which of the cycle's nodes an arc enters by looking for the same number
    again.

    A single root is a lexicographic order on (fewest arcs from ROOT, highest score), which Chu-Liu-Edmonds
    is as correct for as for numbers: an arc from ROOT is chosen only where a node has no other, that is,
    when all that can be contracted is.

    `rows` has 2 * size rows; the first `size` are given. Returns whether there is a tree.
    """
    size = rows.shape[1]
    state, group, chosen, child, sibling, first, last, following, path = links
    state[:] = _UNSEEN
    for v in range(size):
        group[v] = v
        child[v] = -1
        first[v] = v
        last[v] = v
        following[v] = -1
    state[0] = _DONE
    root_taken = False
    lowest = 1 if single_root else 0
    num_nodes = size

    for word in range(1, size):
        if state[group[word]] == _DONE:
            continue
        depth = 1
        path[0] = group[word]
        state[path[0]] = _ON_PATH
        while depth > 0:
            v = path[depth - 1]
            row = rows[v]
            best = maximum(row[lowest:])
            if best == -np.inf:
                if not single_root or root_taken or row[0] == -np.inf:
                    return False
                root_taken = True
                chosen[v] = 0
                entered = 0
            else:
                head = lowest
                while row[head] != best and head < size - 1:
                    head += 1
                chosen[v] = head
                values[v] = best
                entered = group[head]
            if state[entered] == _DONE:
                for i in range(depth):
                    state[path[i]] = _DONE
                depth = 0
            elif state[entered] == _UNSEEN:
                state[entered] = _ON_PATH
                path[depth] = entered
                depth += 1
            else:
                cycle = num_nodes
                num_nodes += 1
                merged = rows[cycle]
                merged[:] = -np.inf
                first[cycle] = -1
                child[cycle] = -1
                while True:
                    depth -= 1
                    part = path[depth]
                    source = rows[part]
                    value = values[part]
                    for h in range(size):
                        merged[h] = max(merged[h], source[h] - value)
                    sibling[part] = child[cycle]
                    child[cycle] = part
                    if first[cycle] < 0:
                        first[cycle] = first[part]
                    else:
                        following[last[cycle]] = first[part]
                    last[cycle] = last[part]
                    if part == entered:
                        break
                member = first[cycle]
                while member >= 0:
                    group[member] = cycle
                    merged[member] = -np.inf
                    member = following[member]
                state[cycle] = _ON_PATH
                path[depth] = cycle
                depth += 1

    for cycle in range(num_nodes - 1, size - 1, -1):
        head = chosen[cycle]
        part = child[cycle]
        while sibling[part] >= 0 and rows[part, head] - values[part] != rows[cycle, head]:
            part = sibling[part]
        chosen[part] = head
    heads[0] = -1
    heads[1:] = chosen[1:size]
    return True


@kernel
def any_tree(heads):
    """
    Where every tree has a forbidden arc: all words under the first, so that callers see a tree that scores
    -inf.
    """
    heads[0] = -1
    for word in range(1, heads.size):
        heads[word] = min(word - 1, 1)


@kernel
def best_heads(scores, single_root, heads):
    """The best tree of one sentence: `heads`, `(tokens,)`, given as -1; `scores` may be padded."""
    size = len(heads)
    if size < 2:
        return
    rows = np.empty((2 * size, size))
    links = np.empty((9, 2 * size), np.int64)
    values = np.empty(2 * size)
    _read_arcs(scores, rows[:size])
    if not _maximum_arborescence(rows, single_root, heads, links, values):
        any_tree(heads)


@kernel
def _argmax(scores, lengths, single_root, heads, start, stop):
    """Fill `heads` (batch, tokens), given as -1, with the best tree."""
    for b in range(start, stop):
        best_heads(scores[b], single_root, heads[b, : lengths[b]])


@kernel
def _top_k(scores, lengths, k, single_root, heads, start, stop):
    """
    Fill `heads` (batch, k, tokens), given as -1, with the k best trees in order, by Lawler's partition.

    The trees other than the best of a set are those that agree with it on the words before i and differ at
    i, for every i: disjoint sets, whose best trees are candidates. A candidate's own set is described by
    the word it deviates at, the heads forbidden there, and its heads before that word, which are fixed. No
    more than k candidates are ever needed.
    """
    for b in range(start, stop):
        size = lengths[b]
        if size < 2:
            continue
        arcs = np.empty((size, size))
        rows = np.empty((2 * size, size))
        links = np.empty((9, 2 * size), np.int64)
        values = np.empty(2 * size)
        _read_arcs(scores[b], arcs)
        candidates = np.empty((k, size), np.int64)
        totals = np.full(k, -np.inf)
        deviations = np.empty(k, np.int64)
        banned = np.zeros((k, size), np.bool_)
        tree = np.empty(size, np.int64)
        trial = np.empty(size, np.int64)
        ban = np.empty(size, np.bool_)

        rows[:size] = arcs
        if _maximum_arborescence(rows, single_root, candidates[0], links, values):
            totals[0] = 0.0
            deviations[0] = 1
        for rank in range(k):
            slot = np.argmax(totals)
            if totals[slot] == -np.inf:
                break
            tree[:] = candidates[slot]
            ban[:] = banned[slot]
            deviation = deviations[slot]
            totals[slot] = -np.inf
            heads[b, rank, :size] = tree
            if rank == k - 1:
                break
            for word in range(deviation, size):
                if word > deviation:
                    ban[:] = False
                ban[tree[word]] = True
                rows[:size] = arcs
                for fixed in range(1, word):
                    rows[fixed, :] = -np.inf
                    rows[fixed, tree[fixed]] = arcs[fixed, tree[fixed]]
                for head in range(size):
                    if ban[head]:
                        rows[word, head] = -np.inf
                if not _maximum_arborescence(rows, single_root, trial, links, values):
                    continue
                total = 0.0
                for i in range(1, size):
                    total += arcs[i, trial[i]]
                slot = np.argmin(totals)
                if total > totals[slot]:
                    totals[slot] = total
                    candidates[slot] = trial
                    deviations[slot] = word
                    banned[slot] = ban


def read(scores: torch.Tensor, mask: torch.Tensor) -> Tuple[np.ndarray, np.ndarray]:
    """The scores in float64, and the number of tokens of each sentence."""
    return to_numpy(scores.double()), to_numpy(mask.sum(-1))


def nonprojective_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The highest-scoring tree, by Chu-Liu-Edmonds in Tarjan's (1977) O(n^2) form. A single root is had
    exactly, in the same time, by contracting everything before an arc from ROOT is chosen (Gabow & Tarjan
    1984; Stanojevic & Cohen 2021). Ties are broken by position only, so a sentence's tree does not depend
    on its batch.

    # Returns

    `torch.LongTensor`
        `(batch, tokens)`: the head of each word, 0 for ROOT; -1 at ROOT and padding. Where -inf leaves no
        tree, some tree, which scores -inf.
    """
    values, lengths = read(scores, mask)
    heads = np.full(mask.shape, -1)
    parallel_for(lambda start, stop: _argmax(values, lengths, single_root, heads, start, stop), len(values))
    return from_numpy(heads, like=scores)


def nonprojective_top_k(
    scores: torch.Tensor, mask: torch.Tensor, k: int, single_root: bool = True
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The k best distinct trees in order, by Lawler's (1972) partition of the set of trees.

    # Returns

    `Tuple[torch.LongTensor, torch.Tensor]`
        Heads, `(batch, k, tokens)` as in `nonprojective_heads`, and the trees' scores, `(batch, k)`,
        differentiable. Where there are fewer than k trees, heads of -1 and scores of -inf follow.
    """
    values, lengths = read(scores, mask)
    heads = np.full((mask.size(0), k, mask.size(1)), -1)
    parallel_for(
        lambda start, stop: _top_k(values, lengths, k, single_root, heads, start, stop),
        len(values),
    )
    heads = from_numpy(heads, like=scores)
    arcs = scores.unsqueeze(1).expand(-1, k, -1, -1).gather(-1, heads.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    # Added up in float64: rounding a sorted list leaves it sorted.
    totals = arcs.double().masked_fill(heads < 0, 0.0).sum(-1)
    missing = (heads < 0).all(-1)
    missing[:, 0] &= mask.sum(-1) > 1
    return heads, totals.masked_fill(missing, -float("inf")).to(scores.dtype)
