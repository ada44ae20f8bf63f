import torch
from allennlp.common import Registrable

from spigot_allennlp.functional.trees import arcs_from_heads, legal_arcs
from spigot_allennlp.modules.costs import Costs
from spigot_allennlp.structures import LatentStructure


class TreeLoss(Registrable):
    """
    The supervised loss of the arcs of a tree.
    """

    default_implementation = "cross_entropy"

    def __call__(
        self, scores: torch.Tensor, mask: torch.Tensor, gold_heads: torch.Tensor, structure: LatentStructure
    ) -> torch.Tensor:
        """
        # Parameters

        scores : `torch.Tensor`
            `(batch, dependents, heads)`; -inf forbids an arc.
        mask : `torch.Tensor`
            `(batch, tokens)`.
        gold_heads : `torch.Tensor`
            `(batch, tokens)`, ROOT's own position included. Words whose gold head is -1 do not count.
        structure : `LatentStructure`
            What is parsed.

        # Returns

        `torch.Tensor`
            `(batch,)`, summed over each sentence.
        """
        raise NotImplementedError


@TreeLoss.register("cross_entropy")
class CrossEntropyTreeLoss(TreeLoss):
    """
    The cross-entropy of each word's gold head among all heads (Dozat and Manning 2017).
    """

    def __call__(
        self, scores: torch.Tensor, mask: torch.Tensor, gold_heads: torch.Tensor, structure: LatentStructure
    ) -> torch.Tensor:
        log_probs = scores.masked_fill(~legal_arcs(mask), -torch.inf)
        # A row without any legal head would give NaN.
        log_probs = log_probs.masked_fill(~(gold_heads >= 0).unsqueeze(-1), 0.0).log_softmax(-1)
        gold = arcs_from_heads(gold_heads, scores.dtype)
        return -torch.where(gold > 0, log_probs, 0.0).flatten(1).sum(-1)


@TreeLoss.register("hinge")
class HingeTreeLoss(TreeLoss):
    """
    The structured hinge loss, by cost-augmented decoding (Taskar et al. 2003; Peng et al. 2018, section 4.1):

        max_{z in Y} (<s, z> + cost(z, gold)) - <s, gold>
        cost(z, gold) = false_positive_cost |z - gold|_1 + false_negative_cost |gold - z|_1   (parts of one, not other)

    where `Y` are the structures of `structure`. A wrong head is an arc too many and one too few. Exactly 0 where
    the gold tree outscores every other one by its cost; a gold tree outside of `Y` counts as if it were in it.

    # Parameters

    false_positive_cost, false_negative_cost : `float`, optional (default = `0.5`)

    # Errors

    `ConfigurationError` for a negative cost.
    """

    def __init__(self, false_positive_cost: float = 0.5, false_negative_cost: float = 0.5) -> None:
        self.costs = Costs(false_positive_cost, false_negative_cost)

    def __call__(
        self, scores: torch.Tensor, mask: torch.Tensor, gold_heads: torch.Tensor, structure: LatentStructure
    ) -> torch.Tensor:
        known = (gold_heads >= 0).unsqueeze(-1)
        counted = known & legal_arcs(mask)
        scores = scores.masked_fill(~counted, 0.0)
        gold = arcs_from_heads(gold_heads) > 0
        augmented = self.costs.augment(scores.detach(), gold).masked_fill(~counted, 0.0)
        best = (structure.argmax(augmented, mask) > 0) & known
        # Arcs of both trees cancel exactly.
        margin = torch.where(best & ~gold, scores, 0.0) - torch.where(gold & ~best, scores, 0.0)
        cost = self.costs.between(best, gold).to(scores.dtype)
        return (margin.flatten(1).sum(-1) + cost).clamp(min=0.0)
