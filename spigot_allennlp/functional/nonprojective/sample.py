"""
Samples from the Gibbs distribution over trees.
"""

import numpy as np
import torch

from spigot_allennlp.functional.draws import draw, draw_extended, uniform
from spigot_allennlp.functional.extended import ZERO_EXPONENT, add, normalise
from spigot_allennlp.functional.nonprojective.maximum import any_tree, read
from spigot_allennlp.functional.nonprojective.sums import eliminate_extended, marginals_by_kernel, read_weights
from spigot_allennlp.functional.runtime import from_numpy, kernel, parallel_for, to_numpy


@kernel
def _random_walks(cumulative, root_child, state, heads):
    """
    Wilson's (1996) algorithm: loop-erased random walks towards the tree. Returns whether it ended within a
    number of steps.

    Giving up and sampling in another way then adds no bias: the tree that remains is independent of the
    loops erased.
    """
    size = cumulative.shape[0]
    steps = 20 * size * size
    in_tree = np.zeros(size, np.bool_)
    in_tree[0] = True
    if root_child > 0:
        heads[root_child] = 0
        in_tree[root_child] = True
    for word in range(1, size):
        node = word
        while not in_tree[node]:
            steps -= 1
            row = cumulative[node]
            if steps < 0 or not row[size - 1] > 0.0:
                return False
            # The first head whose cumulative weight exceeds the point: never one of weight 0.
            head = np.searchsorted(row, uniform(state) * row[size - 1], side="right")
            heads[node] = min(head, size - 1)
            node = heads[node]
        node = word
        while not in_tree[node]:
            in_tree[node] = True
            node = heads[node]
    return True


@kernel
def _ancestral_sample(weights, exponents, state, heads):
    """
    Sample the words' heads one by one, each from its marginals given those before, in O(n^4) extended
    operations.

    A word with its head becomes one node, so that the graph shrinks; which of a node's words is the head is
    drawn afterwards. Returns whether there is a tree.
    """
    n = weights.shape[0]
    graph, graph_x = weights.copy(), exponents.copy()
    work, work_x = np.empty((n, n + 1)), np.empty((n, n + 1))
    pivots, pivots_x = np.empty(n), np.empty(n)
    chances, chances_x = np.empty(n + 1), np.empty(n + 1)
    node = np.arange(n + 1)
    for d in range(n - 1, -1, -1):
        for i in range(d + 1):
            work[i, : d + 1], work_x[i, : d + 1] = graph[i, : d + 1], graph_x[i, : d + 1]
            work[i, d + 1], work_x[i, d + 1] = graph[i, n], graph_x[i, n]
        if not eliminate_extended(work, work_x, d, d + 1, pivots, pivots_x):
            return False
        chances[:] = 0.0
        chances[n], chances_x[n] = graph[d, n], graph_x[d, n]
        for h in range(d):
            chances[h], chances_x[h] = normalise(graph[d, h] * work[h, d + 1], graph_x[d, h] + work_x[h, d + 1])
        target = draw_extended(chances, chances_x, 256.0, uniform(state))
        if target < 0:
            return False
        for h in range(n + 1):
            chances[h] = weights[d, h] if node[h] == target else 0.0
            chances_x[h] = exponents[d, h]
        head = draw_extended(chances, chances_x, 256.0, uniform(state))
        heads[d + 1] = 0 if head == n else head + 1
        for i in range(d):
            if i != target:
                graph[i, target], graph_x[i, target] = add(
                    graph[i, target], graph_x[i, target], graph[i, d], graph_x[i, d]
                )
        for h in range(n + 1):
            if node[h] == d:
                node[h] = target
    return True


@kernel
def _sample(scores, lengths, single_root, marginals, seeds, heads, start, stop):
    """
    Fill `heads` (samples, batch, tokens), given as -1, with samples from the Gibbs distribution. With a
    single root, the word under it is drawn from its `marginals` (batch, tokens, tokens), and then takes the
    place of ROOT.
    """
    state = np.empty(1, np.uint64)
    for b in range(start, stop):
        n = lengths[b] - 1
        if n < 1:
            continue
        weights, exponents = np.empty((n, n + 1)), np.empty((n, n + 1))
        read_weights(scores[b], scores[b], 0.0, n, single_root, False, weights, exponents)
        cumulative = np.zeros((n + 1, n + 1))
        for d in range(n):
            total = 0.0 if single_root else weights[d, n]
            cumulative[d + 1, 0] = total
            for h in range(n):
                total += weights[d, h]
                cumulative[d + 1, h + 1] = total
        for sample in range(seeds.shape[0]):
            state[0] = np.uint64(seeds[sample, b])
            tree = heads[sample, b, : n + 1]
            root_child = 0
            if single_root:
                root_child = draw(marginals[b, : n + 1, 0], uniform(state))
                if root_child < 0:
                    any_tree(tree)
                    continue
            if _random_walks(cumulative, root_child, state, tree):
                continue
            read_weights(scores[b], scores[b], 0.0, n, single_root, True, weights, exponents)
            if single_root:
                for d in range(n):
                    weights[d, n] = 1.0 if d == root_child - 1 else 0.0
                    exponents[d, n] = 0.0 if d == root_child - 1 else ZERO_EXPONENT
            if not _ancestral_sample(weights, exponents, state, tree):
                any_tree(tree)


def nonprojective_sample(
    scores: torch.Tensor, mask: torch.Tensor, num_samples: int, single_root: bool = True
) -> torch.Tensor:
    """
    Independent samples from the Gibbs distribution over trees: by Wilson's (1996) random walks, and one arc
    after the other where those would run long. With a single root, the word under ROOT is drawn first, from
    its marginals. Seeded by torch's global random state.

    # Returns

    `torch.LongTensor`
        Heads, `(num_samples, batch, tokens)`, as in `nonprojective_heads`.
    """
    values, lengths = read(scores, mask)
    marginals = marginals_by_kernel(scores, mask, single_root=True) if single_root else values
    seeds = to_numpy(torch.randint(2**63 - 1, (num_samples, mask.size(0))))
    heads = np.full((num_samples, *mask.shape), -1)
    parallel_for(
        lambda start, stop: _sample(values, lengths, single_root, marginals, seeds, heads, start, stop),
        len(values),
    )
    return from_numpy(heads, like=scores)
