"""
MAP inference over graphs with constraints: between the labeled arcs of one predicate, or that all words are connected.
"""

from typing import NamedTuple, Optional

import torch
from scipy.optimize import linear_sum_assignment

from spigot_allennlp.functional.nonprojective import nonprojective_heads
from spigot_allennlp.functional.trees import arcs_from_heads, legal_arcs


class BestGraph(NamedTuple):
    """
    # Parameters

    labels : `torch.Tensor`
        `(batch, dependents, heads)`: the label of each arc, -1 where there is none.
    predicates : `torch.Tensor`
        Boolean `(batch, heads)`: the predicates; every head of an arc is one.
    """

    labels: torch.Tensor
    predicates: torch.Tensor


@torch.no_grad()
def best_graph(
    scores: torch.Tensor,
    predicate_scores: Optional[torch.Tensor] = None,
    deterministic: Optional[torch.Tensor] = None,
) -> BestGraph:
    """
    The labeled graph of highest score,

        argmax_{y, p}  sum_{d, h, l} y[d, h, l] scores[d, h, l] + sum_h p[h] predicate_scores[h]

    subject to the constraints of Peng et al. (2018, section 4.1; Martins and Almeida 2014):

    - an arc has one label: `sum_l y[d, h, l] <= 1`;
    - an arc needs its predicate: `y[d, h, l] <= p[h]`;
    - a predicate has at most one argument in each deterministic role: `sum_d y[d, h, l] <= 1`. The arcs from ROOT (head
      0) mark top nodes and have no roles.

    Exact: heads are independent of each other, and the arcs of one are an assignment of its dependents to the
    deterministic roles, solved where the best labels alone break the last constraint. O(n^2 labels), plus
    O(n^3) for each such head, on the CPU.

    # Parameters

    scores : `torch.Tensor`
        `(batch, dependents, heads, labels)`; -inf where an arc or label is impossible. An absent arc scores 0.
    predicate_scores : `torch.Tensor`, optional
        `(batch, heads)`; without it every word can be a predicate at no cost.
    deterministic : `torch.Tensor`, optional
        Boolean `(labels,)`.
    """
    values, labels = scores.max(-1)
    labels = labels.masked_fill(~(values > 0), -1)
    values = values.clamp(min=0)
    if deterministic is not None and deterministic.any():
        _assign_roles(scores, deterministic, labels, values)
    totals = values.sum(1)
    if predicate_scores is not None:
        totals = totals + predicate_scores
    predicates = totals > 0
    return BestGraph(labels.masked_fill(~predicates.unsqueeze(1), -1), predicates)


@torch.no_grad()
def best_connected_graph(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    The graph of highest score in which every word can be reached from ROOT, that is, from a top node:

        argmax_y  sum_{d, h} y[d, h] scores[d, h]   subject to   y contains an arborescence rooted at ROOT.

    The result is exact. Among the graphs that contain an arborescence `t`, the best one has the arcs of `t` and all
    arcs of positive score. It scores `sum_{d, h} max(0, scores[d, h])`, less what the arcs of `t` with negative scores
    cost. The best `t` is therefore the maximum arborescence for the weights `min(0, scores)` (Chu-Liu-Edmonds), with
    any number of words below ROOT. O(n^2) for each sentence.

    # Parameters

    scores : `torch.Tensor`
        `(batch, dependents, heads)`, ROOT at index 0; an absent arc scores 0. -inf for an arc that is not wanted: it is
        added only where no graph without such arcs connects all words.
    mask : `torch.Tensor`
        Boolean `(batch, tokens)`, ROOT included.

    # Returns

    `torch.Tensor`
        Boolean `(batch, dependents, heads)`.
    """
    heads = nonprojective_heads(scores.clamp(max=0), mask, single_root=False)
    return ((scores > 0) & legal_arcs(mask)) | arcs_from_heads(heads, torch.bool)


def _assign_roles(
    scores: torch.Tensor, deterministic: torch.Tensor, labels: torch.Tensor, values: torch.Tensor
) -> None:
    """
    Corrects `labels`, and `values`, their scores, where a predicate has several arguments in a deterministic role.
    """
    num_heads, num_labels = scores.shape[2:]
    batch, dependents, heads = ((labels >= 0) & deterministic[labels]).nonzero(as_tuple=True)
    roles = (batch * num_heads + heads) * num_labels + labels[batch, dependents, heads]
    roles, counts = roles[heads > 0].unique(return_counts=True)
    broken = roles[counts > 1].div(num_labels, rounding_mode="floor").unique()
    role_of = deterministic.nonzero().flatten()
    for b, h in zip((broken // num_heads).tolist(), (broken % num_heads).tolist()):
        # What a dependent is worth without a deterministic role: its best other label, or no arc.
        other, other_labels = scores[b, :, h].masked_fill(deterministic, -torch.inf).max(-1)
        other_labels = other_labels.masked_fill(~(other > 0), -1)
        other = other.clamp(min=0)
        # shape: (dependents, deterministic roles). A gain of 0 stands for no such role.
        gains = (scores[b, :, h, role_of] - other.unsqueeze(-1)).clamp(min=0)
        rows, columns = map(torch.as_tensor, linear_sum_assignment(gains.double().cpu().numpy(), maximize=True))
        rows, columns = rows.to(gains.device), columns.to(gains.device)
        gain = gains[rows, columns]
        other[rows] += gain
        other_labels[rows] = torch.where(gain > 0, role_of[columns], other_labels[rows])
        labels[b, :, h], values[b, :, h] = other_labels, other
