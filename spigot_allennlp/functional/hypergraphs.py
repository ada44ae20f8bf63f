"""
Sums, maxima and samples over the derivations of a directed acyclic hypergraph: what dynamic programs have in common.

A *node* is derived by any one of its *edges* `(first tail, second tail, part)`: that is, from both tails and with one
part, or none. A structure is a derivation of the *goal*, a 0/1 vector over the parts of its edges, and its score is the
sum of theirs; distinct derivations must be distinct structures. Node 0 is derived from nothing and stands for a tail
that is missing. Tails come before what they derive, so that one pass upwards finds, for each node,

    value[v] = log sum over edges e of  exp(value[first tail] + value[second tail] + score[part]),

and what each edge contributes to its node, its *share*, a probability. One pass downwards gives the probabilities of
all edges, as products of shares; derivatives of both passes along a direction give the derivative of the marginals.
(Huang 2008, "Advanced dynamic programming in semiring and hypergraph frameworks"; Li and Eisner 2009.)

Everything is float64, takes time and memory linear in the number of edges, and runs in compiled kernels on the CPU, in
as many threads as torch has. Results are on the device of the scores.
"""

import math
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np
import torch

from spigot_allennlp.functional.derivatives import MARGINALS_ONCE, last_derivative
from spigot_allennlp.functional.draws import draw, uniform
from spigot_allennlp.functional.lanes import BYTES, exponential_like, lane_kernel, load, splat, store, where_greater
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy

# So many instances are worked on side by side: they have their hypergraph in common.
_LANES = BYTES // 8


class Hypergraph(NamedTuple):
    """
    # Parameters

    firsts : `np.ndarray`
        `(nodes + 1,)`, int64: the edges of node v are those from `firsts[v]` to `firsts[v + 1]`.
    tails : `np.ndarray`
        `(edges, 2)`, int64: the nodes that an edge derives its node from; 0 for none.
    parts : `np.ndarray`
        `(edges,)`, int64: the flat index of the edge's part; the number of parts for none.
    """

    firsts: np.ndarray
    tails: np.ndarray
    parts: np.ndarray


def hypergraph(edges: List[Tuple[np.ndarray, ...]], num_nodes: int) -> Hypergraph:
    """
    # Parameters

    edges : `List[Tuple[np.ndarray, ...]]`
        Groups of edges, each as the node, the first tail, the second tail and the part, numbers or arrays that
        broadcast against each other. Of equally good edges the first one counts as the best.
    num_nodes : `int`
        Number of nodes, node 0 included.
    """
    groups = [np.broadcast_arrays(*map(np.int64, group)) for group in edges] or [(np.empty(0, np.int64),) * 4]
    nodes, first, second, parts = (
        np.concatenate([array.reshape(-1) for array in column]) for column in zip(*groups, strict=True)
    )
    order = np.argsort(nodes, kind="stable")
    tails = np.stack([first[order], second[order]], axis=1)
    return Hypergraph(np.searchsorted(nodes[order], np.arange(num_nodes + 1)), tails, parts[order])


@lane_kernel
def _inside(graph, scores, last, values, shares):
    """
    Fills in the values of the nodes up to `last` and the shares of their edges, for one instance in each lane.

    # Parameters

    scores, values, shares : `np.ndarray`
        `(parts + 1, 1, lanes)`, the last part's 0 and none below `FORBIDDEN`; `(nodes, 1, lanes)`; and
        `(edges, 1, lanes)`. A node whose value is about `FORBIDDEN` cannot be derived.
    """
    one = splat(values, 1.0)
    store(values, 0, 0, splat(values, 0.0))
    for node in range(1, last + 1):
        first, end = graph.firsts[node], graph.firsts[node + 1]
        best = splat(values, FORBIDDEN if first == end else -np.inf)
        for edge in range(first, end):
            value = load(values, graph.tails[edge, 0], 0) + load(values, graph.tails[edge, 1], 0)
            value = value + load(scores, graph.parts[edge], 0)
            store(shares, edge, 0, value)
            best = where_greater(value, best, value, best)
        if end - first == 1:
            store(shares, first, 0, one)
        if end - first <= 1:
            store(values, node, 0, best)
            continue
        total = splat(values, 0.0)
        for edge in range(first, end):
            share = exponential_like(values, load(shares, edge, 0) - best, best)
            store(shares, edge, 0, share)
            total = total + share
        inverse = one / total
        for edge in range(first, end):
            store(shares, edge, 0, load(shares, edge, 0) * inverse)
        store(values, node, 0, total)
        for lane in range(_LANES):
            values[node, 0, lane] = math.log(values[node, 0, lane])
        store(values, node, 0, load(values, node, 0) + best)


@lane_kernel
def _inside_outside(graph, scores, directions, goals, log_partition, results, start, stop):
    """
    # Parameters

    scores, directions : `np.ndarray`
        `(blocks, parts + 1, 1, lanes)`, as in `_inside`. Without directions, which are `None` then, the results are
        marginals, else the derivatives of those.
    goals : `np.ndarray`
        `(blocks, lanes)`.
    log_partition, results : `np.ndarray`
        Outputs: `(blocks, lanes)`; and, given as zeros, `(blocks, parts + 1, 1, lanes)`; the last part is nothing.
    """
    num_nodes = len(graph.firsts) - 1
    values, probabilities = np.empty((num_nodes, 1, _LANES)), np.empty((num_nodes, 1, _LANES))
    shares = np.empty((len(graph.parts), 1, _LANES))
    moves, changes = np.zeros((num_nodes, 1, _LANES)), np.zeros((num_nodes, 1, _LANES))
    zero = splat(values, 0.0)
    for block in range(start, stop):
        last = goals[block].max()
        # Not in the loops: a view of a part of an array takes longer than what is done with it.
        result = results[block]
        _inside(graph, scores[block], last, values, shares)
        probabilities[: last + 1] = 0.0
        for lane in range(_LANES):
            goal = goals[block, lane]
            value = values[goal, 0, lane]
            feasible = value > FORBIDDEN / 2
            log_partition[block, lane] = value if feasible else -np.inf
            probabilities[goal, 0, lane] = 1.0 if feasible else 0.0
        if directions is not None:
            direction = directions[block]
            # The derivatives of the values, and, from the goal downwards, of the probabilities.
            for node in range(1, last + 1):
                move = zero
                for edge in range(graph.firsts[node], graph.firsts[node + 1]):
                    below = load(moves, graph.tails[edge, 0], 0) + load(moves, graph.tails[edge, 1], 0)
                    below = below + load(direction, graph.parts[edge], 0)
                    move = move + load(shares, edge, 0) * below
                store(moves, node, 0, move)
            changes[: last + 1] = 0.0
        for node in range(last, 0, -1):
            whole = load(probabilities, node, 0)
            for edge in range(graph.firsts[node], graph.firsts[node + 1]):
                first, second, part = graph.tails[edge, 0], graph.tails[edge, 1], graph.parts[edge]
                share = load(shares, edge, 0)
                probability = share * whole
                store(probabilities, first, 0, load(probabilities, first, 0) + probability)
                store(probabilities, second, 0, load(probabilities, second, 0) + probability)
                if directions is None:
                    store(result, part, 0, load(result, part, 0) + probability)
                else:
                    move = load(moves, first, 0) + load(moves, second, 0) + load(direction, part, 0)
                    change = share * load(changes, node, 0) + probability * (move - load(moves, node, 0))
                    store(changes, first, 0, load(changes, first, 0) + change)
                    store(changes, second, 0, load(changes, second, 0) + change)
                    store(result, part, 0, load(result, part, 0) + change)


@lane_kernel
def _argmax(graph, scores, goals, members, start, stop):
    """`scores`: as in `_inside`. `members`: output, given as false, `(batch, parts + 1)`."""
    num_nodes = len(graph.firsts) - 1
    # Edges are whole numbers, which floats hold.
    values, origins = np.empty((num_nodes, 1, _LANES)), np.empty((num_nodes, 1, _LANES))
    stack = np.empty(num_nodes + 1, np.int64)
    store(values, 0, 0, splat(values, 0.0))
    for block in range(start, stop):
        block_scores = scores[block]
        for node in range(1, goals[block].max() + 1):
            best = splat(values, -np.inf)
            origin = splat(values, 0.0)
            for edge in range(graph.firsts[node], graph.firsts[node + 1]):
                value = load(values, graph.tails[edge, 0], 0) + load(values, graph.tails[edge, 1], 0)
                value = value + load(block_scores, graph.parts[edge], 0)
                origin = where_greater(value, best, splat(values, edge), origin)
                best = where_greater(value, best, value, best)
            store(values, node, 0, best)
            store(origins, node, 0, origin)
        for lane in range(min(_LANES, len(members) - block * _LANES)):
            stack[0] = goals[block, lane]
            size = 1
            while size > 0:
                size -= 1
                node = stack[size]
                if node > 0:
                    edge = np.int64(origins[node, 0, lane])
                    members[block * _LANES + lane, graph.parts[edge]] = True
                    stack[size] = graph.tails[edge, 0]
                    stack[size + 1] = graph.tails[edge, 1]
                    size += 2


@kernel
def _top_k(graph, scores, goals, k, members, totals, start, stop):
    """
    A list of the k best derivations for each node (Huang and Chiang 2005, algorithm 1, cut short by the order of the
    lists).

    # Parameters

    members, totals : `np.ndarray`
        Outputs, given as false and -inf: `(batch, k, parts + 1)` and `(batch, k)`.
    """
    num_nodes = len(graph.firsts) - 1
    best = np.empty((num_nodes, k))
    origins = np.empty((num_nodes, k, 3), np.int64)
    stack = np.empty((num_nodes + 1, 2), np.int64)
    for b in range(start, stop):
        best[:] = -np.inf
        best[0, 0] = 0.0
        for node in range(1, goals[b] + 1):
            found, origin = best[node], origins[node]
            for edge in range(graph.firsts[node], graph.firsts[node + 1]):
                first, second = best[graph.tails[edge, 0]], best[graph.tails[edge, 1]]
                score = scores[b, graph.parts[edge]]
                for i in range(k):
                    if not first[i] + second[0] + score > found[k - 1]:
                        break
                    for j in range(k):
                        total = first[i] + second[j] + score
                        if not total > found[k - 1]:
                            break
                        place = k - 1
                        while place > 0 and total > found[place - 1]:
                            found[place] = found[place - 1]
                            origin[place] = origin[place - 1]
                            place -= 1
                        found[place] = total
                        origin[place] = edge, i, j
        for rank in range(k):
            totals[b, rank] = best[goals[b], rank]
            if totals[b, rank] == -np.inf:
                break
            stack[0] = goals[b], rank
            size = 1
            while size > 0:
                size -= 1
                node, place = stack[size]
                if node > 0:
                    edge, i, j = origins[node, place]
                    members[b, rank, graph.parts[edge]] = True
                    stack[size] = graph.tails[edge, 0], i
                    stack[size + 1] = graph.tails[edge, 1], j
                    size += 2


@lane_kernel
def _sample(graph, scores, goals, seeds, members, start, stop):
    """`seeds`: `(samples, batch)`. `members`: output, given as false, `(samples, batch, parts + 1)`."""
    num_nodes = len(graph.firsts) - 1
    values = np.empty((num_nodes, 1, _LANES))
    shares = np.empty((len(graph.parts), 1, _LANES))
    stack = np.empty(num_nodes + 1, np.int64)
    state = np.empty(1, np.uint64)
    for block in range(start, stop):
        _inside(graph, scores[block], goals[block].max(), values, shares)
        for lane in range(_LANES):
            instance = block * _LANES + lane
            if instance >= members.shape[1] or not values[goals[block, lane], 0, lane] > FORBIDDEN / 2:
                continue
            for number in range(len(seeds)):
                state[0] = np.uint64(seeds[number, instance])
                stack[0] = goals[block, lane]
                size = 1
                while size > 0:
                    size -= 1
                    node = stack[size]
                    if node > 0:
                        first, last = graph.firsts[node], graph.firsts[node + 1]
                        edge = first + draw(shares[first:last, 0, lane], uniform(state))
                        members[number, instance, graph.parts[edge]] = True
                        stack[size] = graph.tails[edge, 0]
                        stack[size + 1] = graph.tails[edge, 1]
                        size += 2


def _read(scores: torch.Tensor) -> np.ndarray:
    """In float64, with one more part, of score 0, for edges without a part."""
    return to_numpy(torch.nn.functional.pad(scores.detach().double(), (0, 1)))


def _in_lanes(scores: torch.Tensor) -> np.ndarray:
    """As `_read`, `(blocks, parts + 1, 1, lanes)`; the last block is filled up with zeros."""
    values = _read(scores.clamp(min=FORBIDDEN))
    filled = np.zeros((-(-len(values) // _LANES) * _LANES, values.shape[1]))
    filled[: len(values)] = values
    return np.ascontiguousarray(filled.reshape(-1, _LANES, values.shape[1]).transpose(0, 2, 1))[:, :, None]


def _goals_in_lanes(goals: np.ndarray) -> np.ndarray:
    return np.pad(goals, (0, -len(goals) % _LANES)).reshape(-1, _LANES)


def _sums(
    scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray, direction: Optional[torch.Tensor] = None
) -> Tuple[torch.Tensor, torch.Tensor]:
    """The log-partition function and the marginals or, given a direction, their derivative along it."""
    values, goals = _in_lanes(scores), _goals_in_lanes(goals)
    directions = None if direction is None else _in_lanes(direction)
    log_partition, results = np.zeros(goals.shape), np.zeros_like(values)
    parallel_for(
        lambda start, stop: _inside_outside(graph, values, directions, goals, log_partition, results, start, stop),
        len(goals),
    )
    results = np.ascontiguousarray(results[:, :-1, 0].transpose(0, 2, 1)).reshape(-1, scores.size(1))[: len(scores)]
    return (
        from_numpy(log_partition.reshape(-1)[: len(scores)], like=scores, dtype=scores.dtype),
        from_numpy(results, like=scores, dtype=scores.dtype),
    )


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray) -> torch.Tensor:
        log_partition, marginals = _sums(scores, graph, goals)
        ctx.graph, ctx.goals = graph, goals
        ctx.save_for_backward(scores, marginals)
        return log_partition

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, marginals = ctx.saved_tensors
        # A function of the scores, so that it can be differentiated, but one that is already known.
        marginals = _Marginals.apply(scores, ctx.graph, ctx.goals, marginals)
        return gradient.unsqueeze(-1) * marginals, None, None


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray, known: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        ctx.graph, ctx.goals = graph, goals
        ctx.save_for_backward(scores)
        marginals = _sums(scores, graph, goals)[1] if known is None else known
        # Rounding makes no probability larger than 1. The gradient is taken at the exact ones.
        return marginals.clamp(0.0, 1.0)

    @staticmethod
    @last_derivative(MARGINALS_ONCE)
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        # The Jacobian is the log-partition's Hessian, hence symmetric: its transpose times a vector is a derivative
        # along it.
        (scores,) = ctx.saved_tensors
        return _sums(scores, ctx.graph, ctx.goals, gradient)[1], None, None, None


def hypergraph_log_partition(scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray) -> torch.Tensor:
    """
    The logarithm of the sum of the derivations' exponentiated scores. Differentiable twice; its gradient are the
    marginals.

    # Parameters

    scores : `torch.Tensor`
        `(batch, parts)`; -inf forbids a part.
    graph : `Hypergraph`
        The hypergraph that all instances share.
    goals : `np.ndarray`
        `(batch,)`, int64: the node that each instance derives; 0 for the empty structure.

    # Returns

    `torch.Tensor`
        `(batch,)`; -inf where all derivations are forbidden.
    """
    return _LogPartition.apply(scores, graph, goals)


def hypergraph_marginals(scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray) -> torch.Tensor:
    """
    The probability of each part, if a derivation's is proportional to its exponentiated score. Differentiable
    once. For the parameters see `hypergraph_log_partition`.

    # Returns

    `torch.Tensor`
        `(batch, parts)`; 0 where all derivations are forbidden.
    """
    return _Marginals.apply(scores, graph, goals)


def hypergraph_argmax(scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray) -> torch.Tensor:
    """
    The best derivation; of several, always the same one. For the parameters see `hypergraph_log_partition`; the goals
    have to have a derivation.

    # Returns

    `torch.BoolTensor`
        `(batch, parts)`. Where all derivations are forbidden, one with as few forbidden parts as possible.
    """
    values, goals = _in_lanes(scores), _goals_in_lanes(goals)
    members = np.zeros((len(scores), scores.size(1) + 1), np.bool_)
    parallel_for(lambda start, stop: _argmax(graph, values, goals, members, start, stop), len(goals))
    return from_numpy(members, like=scores)[:, :-1]


def hypergraph_top_k(
    scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray, k: int
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The k best derivations, distinct, best first. For the parameters see `hypergraph_log_partition`.

    # Returns

    `Tuple[torch.BoolTensor, torch.Tensor]`
        Their parts, `(batch, k, parts)`, and scores, `(batch, k)`, without gradient; where there are fewer than k, no
        part and -inf.
    """
    values = _read(scores)
    members = np.zeros((len(values), k, values.shape[1]), np.bool_)
    totals = np.full((len(values), k), -np.inf)
    parallel_for(
        lambda start, stop: _top_k(graph, values, goals, k, members, totals, start, stop),
        len(values),
    )
    return from_numpy(members, like=scores)[..., :-1], from_numpy(totals, like=scores, dtype=scores.dtype)


def hypergraph_sample(scores: torch.Tensor, graph: Hypergraph, goals: np.ndarray, num_samples: int) -> torch.Tensor:
    """
    Independent derivations, each with probability proportional to its exponentiated score, by torch's global random
    state. For the parameters see `hypergraph_log_partition`.

    # Returns

    `torch.BoolTensor`
        `(num_samples, batch, parts)`.
    """
    values, goals = _in_lanes(scores), _goals_in_lanes(goals)
    seeds = to_numpy(torch.randint(2**63 - 1, (num_samples, len(scores))))
    members = np.zeros((num_samples, len(scores), scores.size(1) + 1), np.bool_)
    parallel_for(lambda start, stop: _sample(graph, values, goals, seeds, members, start, stop), len(goals))
    return from_numpy(members, like=scores)[..., :-1]
