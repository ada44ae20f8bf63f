from typing import NamedTuple, Optional, Tuple, Union

import torch
from allennlp.common import Registrable

from spigot_allennlp.functional.labeled_graphs import best_graph
from spigot_allennlp.modules.costs import Costs
from spigot_allennlp.modules.relations import Relations
from spigot_allennlp.modules.weight_schedule import WeightSchedule


class GraphScores(NamedTuple):
    """
    What a graph is decoded from and learned by.

    # Parameters

    arcs : `torch.Tensor`
        `(batch, dependents, heads)`; 0 at impossible arcs.
    possible : `torch.Tensor`
        Boolean, same shape: the arcs that may be.
    labels : `torch.Tensor`, optional
        `(batch, dependents, heads, labels)`, of every pair of tokens; `None` where it is not read.
    predicates : `torch.Tensor`, optional
        `(batch, heads)`, 0 at ROOT and padding.
    """

    arcs: torch.Tensor
    possible: torch.Tensor
    labels: Optional[torch.Tensor] = None
    predicates: Optional[torch.Tensor] = None

    def without(self, arcs: torch.Tensor, labels: Optional[torch.Tensor] = None) -> "GraphScores":
        """
        The same with impossible `arcs` and, where labels are scored, `labels`: boolean `(batch, dependents, heads)` and
        `(batch, dependents, heads, labels)`.
        """
        scores = self._replace(possible=self.possible & ~arcs)
        if labels is None or self.labels is None:
            return scores
        return scores._replace(labels=self.labels.masked_fill(labels, -torch.inf))


class GraphLoss(torch.nn.Module, Registrable):
    """
    The supervised loss of a labeled graph, and with it what the scores mean.
    """

    default_implementation = "cross_entropy"

    # Whether the scores are joint: an arc's score and its label's add up, and decide together whether it is there.
    joint = False

    def part_scores(self, scores: GraphScores) -> torch.Tensor:
        """
        # Returns

        `torch.Tensor`
            `(batch, dependents, heads, 1 + labels)`: the parts of a `labeled_arc_graph`, each arc and what a label adds
            to it; an impossible part is -inf. The arcs from ROOT, which mark top nodes, have only the first label.
        """
        labels = self._of_labels(scores.labels)
        of_root = torch.full_like(labels[:, :, :1], -torch.inf)
        of_root[..., 0] = 0.0
        labels = torch.cat([of_root, labels[:, :, 1:]], dim=2)
        parts = torch.cat([scores.arcs.unsqueeze(-1), labels], dim=-1)
        return parts.masked_fill(~scores.possible.unsqueeze(-1), -torch.inf)

    def labeled_scores(self, scores: GraphScores) -> torch.Tensor:
        """
        # Returns

        `torch.Tensor`
            `(batch, dependents, heads, labels)`: what to decode, each arc with each of its labels. An absent arc scores
            0, an impossible one -inf.
        """
        parts = self.part_scores(scores)
        return parts[..., :1] + parts[..., 1:]

    def _of_labels(self, labels: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(
        self,
        scores: GraphScores,
        gold: torch.Tensor,
        gold_logits: torch.Tensor,
        deterministic: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """
        # Parameters

        scores : `GraphScores`
            Scores in which gold arcs are possible.
        gold : `torch.Tensor`
            `(batch, dependents, heads)`, a graph of indices (see `Relations`). The label of an arc whose gold label
            is unknown does not count.
        gold_logits : `torch.Tensor`
            `(arcs, labels)`: the scores of the labels of the arcs in `labeled_arcs(gold >= 0)`.
        deterministic : `torch.Tensor`, optional
            Boolean `(labels,)`: the deterministic roles, as far as the loss is about what decoding makes of the scores.

        # Returns

        `torch.Tensor`
            `(batch,)`, summed over each sentence.
        """
        raise NotImplementedError


@GraphLoss.register("cross_entropy")
class CrossEntropyGraphLoss(GraphLoss):
    """
    The cross-entropy of all possible arcs, each present or not, of the labels of gold arcs, and, where predicates are
    scored, of all words, each with arcs to dependents or without (Dozat and Manning 2018, section 2.3).
    """

    def _of_labels(self, labels: torch.Tensor) -> torch.Tensor:
        # The arc's score decides on the arc: the best label adds nothing, another one its log-odds against it.
        return labels - labels.max(-1, keepdim=True).values

    def forward(
        self,
        scores: GraphScores,
        gold: torch.Tensor,
        gold_logits: torch.Tensor,
        deterministic: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        arcs = gold >= 0
        losses = _binary_cross_entropy(scores.arcs, arcs).masked_fill(~scores.possible, 0.0).flatten(1).sum(-1)
        if scores.predicates is not None:
            words = scores.possible[:, :, 1:].any(1)
            of_words = _binary_cross_entropy(scores.predicates, arcs.any(1))[:, 1:]
            losses = losses + of_words.masked_fill(~words, 0.0).sum(-1)
        index = labeled_arcs(arcs)
        return losses + Relations.loss(gold_logits, gold[index], index[0], len(gold))


@GraphLoss.register("hinge")
class HingeGraphLoss(GraphLoss):
    """
    The structured hinge loss of labeled graphs, by cost-augmented decoding (Peng et al. 2018, section 4.1):

        max_y (S(y) + cost(y, gold)) - S(gold)
        S(y) = sum of the scores of the arcs, their labels and the predicates of y
        cost(y, gold) = false_positive_cost |y - gold|_1 + false_negative_cost |gold - y|_1    (labeled arcs)

    over all graphs that `best_graph` chooses from. A wrong label is an arc too many and one too few. Exactly 0 where
    the gold graph outscores every other one by its cost. An arc is predicted where the sum of its score and the score
    of its best label is above 0.

    # Parameters

    false_positive_cost : `Union[float, WeightSchedule]`, optional (default = `0.4`)
        Cost of an arc too many. Almost all of a sentence's arcs are absent, and at first each of them is pushed away by
        this cost, so that learning starts slowly where updates are few: a low cost, or one that rises over the first
        training steps, `{type: 'linear', start: 0, end: 0.4, num_steps: 1000}`, or a pruner, helps.
    false_negative_cost : `float`, optional (default = `0.6`)
        Cost of an arc too few.

    # Errors

    `ConfigurationError` for a negative cost.
    """

    joint = True

    def __init__(
        self, false_positive_cost: Union[float, WeightSchedule] = 0.4, false_negative_cost: float = 0.6
    ) -> None:
        super().__init__()
        self.false_positive_cost = false_positive_cost
        self.false_negative_cost = false_negative_cost
        scheduled = isinstance(false_positive_cost, WeightSchedule)
        # Bad costs are refused when the model is built.
        Costs(0.0 if scheduled else false_positive_cost, false_negative_cost)

    def _costs(self) -> Costs:
        false_positive = self.false_positive_cost
        if isinstance(false_positive, WeightSchedule):
            false_positive = float(false_positive())
        return Costs(false_positive, self.false_negative_cost)

    def _of_labels(self, labels: torch.Tensor) -> torch.Tensor:
        return labels

    def forward(
        self,
        scores: GraphScores,
        gold: torch.Tensor,
        gold_logits: torch.Tensor,
        deterministic: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        labeled = self.labeled_scores(scores)
        # The first label also marks the arcs from ROOT.
        label = Relations.labels(gold, labeled.size(-1)).masked_fill(gold == 0, 0)
        unknown = (gold > 0) & (label < 0)
        label = torch.where(unknown, labeled.detach().argmax(-1), label)
        labels = torch.arange(labeled.size(-1), device=labeled.device)
        gold_parts = label.unsqueeze(-1) == labels
        # Nothing is learned from an unknown label: the arc has the label that the model scores highest, or none.
        labeled = labeled.masked_fill(unknown.unsqueeze(-1) & ~gold_parts, -torch.inf)
        costs = self._costs()
        augmented = costs.augment(labeled.detach(), gold_parts)
        predicates = scores.predicates
        best = best_graph(augmented, None if predicates is None else predicates.detach(), deterministic)
        best_parts = best.labels.unsqueeze(-1) == labels
        # Parts of both graphs cancel exactly.
        margin = _difference(labeled, best_parts, gold_parts)
        if predicates is not None:
            margin = margin + _difference(predicates, best.predicates, (gold >= 0).any(1))
        # Gold graphs that break a constraint, too, are among those that the maximum is over.
        return (margin + costs.between(best_parts, gold_parts).to(margin.dtype)).clamp(min=0.0)


def _binary_cross_entropy(scores: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, gold.to(scores.dtype), reduction="none")


def _difference(scores: torch.Tensor, parts: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`<scores, parts - others>`, `(batch,)`, of boolean parts."""
    signs = parts.to(scores.dtype) - others.to(scores.dtype)
    return torch.where(signs == 0, 0.0, signs * scores).flatten(1).sum(-1)


def labeled_arcs(arcs: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The indices of all arcs but those from ROOT, which mark top nodes and have no labels."""
    batch, dependents, heads = arcs[:, :, 1:].nonzero(as_tuple=True)
    return batch, dependents, heads + 1
