from typing import Tuple

import torch
from allennlp.common import Registrable
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.checks import at_least_one, positive
from spigot_allennlp.functional.trees import arcs_from_heads, legal_arcs
from spigot_allennlp.modules.costs import Costs
from spigot_allennlp.structures import LatentStructure


class TreeLoss(Registrable):
    """
    The supervised loss of the arcs of a tree.
    """

    default_implementation = "cross_entropy"

    # The structure's operations that the loss calls; models check them when they are built.
    requires: Tuple[str, ...] = ()

    def check(self, structure: LatentStructure) -> None:
        """
        # Errors

        `ConfigurationError` if `structure` lacks an operation that this loss requires.
        """
        for operation in self.requires:
            if not structure.supports(operation):
                raise ConfigurationError(
                    f"the loss {type(self).__name__} needs the operation '{operation}', which the structure "
                    f"{structure._name()} does not support"
                )

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
            Structure that is parsed.

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
        Costs of a wrong arc and of a missed gold arc.

    # Errors

    `ConfigurationError` for a negative cost.
    """

    requires = ("argmax",)

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


class FenchelYoungTreeLoss(TreeLoss):
    """
    A Fenchel-Young loss (Blondel et al. 2020) of a regularized prediction over the trees:

        L(s) = max_{m in M} (<s, m> - Omega(m)) + Omega(gold) - <s, gold>,    dL/ds = m* - gold

    A subclass gives the maximum, the convex conjugate of `Omega`. Words without a gold head score 0 for all heads and
    receive no gradient; a sentence without any gold head has loss 0. A gold tree outside of the structures counts as if
    it were one of them.
    """

    def _conjugate(self, scores: torch.Tensor, mask: torch.Tensor, structure: LatentStructure) -> torch.Tensor:
        """`max_{m in M} (<s, m> - Omega(m))`, `(batch,)`, with the gradient `m*` at the scores."""
        raise NotImplementedError

    def _regularizer(self, gold: torch.Tensor) -> torch.Tensor:
        """`Omega` of vertices `(batch, dependents, heads)`: `(batch,)`."""
        return gold.new_zeros(len(gold))

    def __call__(
        self, scores: torch.Tensor, mask: torch.Tensor, gold_heads: torch.Tensor, structure: LatentStructure
    ) -> torch.Tensor:
        counted = (gold_heads >= 0).unsqueeze(-1) & legal_arcs(mask)
        scores = scores.masked_fill(~counted, 0.0)
        gold = arcs_from_heads(gold_heads, scores.dtype)
        gold_score = torch.where(gold > 0, scores, 0.0).flatten(1).sum(-1)
        loss = self._conjugate(scores, mask, structure) + self._regularizer(gold) - gold_score
        return torch.where(counted.flatten(1).any(-1), loss, 0.0)


@TreeLoss.register("crf")
class CrfTreeLoss(FenchelYoungTreeLoss):
    """
    The negative log-likelihood of the gold tree among all trees, `log Z(s) - <s, gold>` (Koo et al. 2007): a global
    normalization, where `cross_entropy` normalizes over the heads of each word.
    """

    requires = ("log_partition",)

    def _conjugate(self, scores: torch.Tensor, mask: torch.Tensor, structure: LatentStructure) -> torch.Tensor:
        return structure.log_partition(scores, mask)


@TreeLoss.register("sparsemap")
class SparseMapTreeLoss(FenchelYoungTreeLoss):
    """
    The SparseMAP loss (Niculae et al. 2018), with `Omega(m) = 1/2 ||m||^2`. Exactly 0, as a hinge loss, where the gold
    tree outscores every other one by half of their squared distance.
    """

    requires = ("project",)

    def _conjugate(self, scores: torch.Tensor, mask: torch.Tensor, structure: LatentStructure) -> torch.Tensor:
        point = structure.project(scores.detach(), mask)
        products = torch.where(point > 0, scores * point, 0.0)
        return (products - point**2 / 2).flatten(1).sum(-1)

    def _regularizer(self, gold: torch.Tensor) -> torch.Tensor:
        return (gold**2 / 2).flatten(1).sum(-1)


@TreeLoss.register("perturbed")
class PerturbedTreeLoss(FenchelYoungTreeLoss):
    """
    The perturbed Fenchel-Young loss (Berthet et al. 2020): the conjugate is `E max_{z in Y} <s + temperature * Z, z>`
    with Gaussian `Z`, estimated with `num_samples` argmaxes, whose mean less the gold tree is the gradient: unbiased
    for any number of samples. `Omega(gold)`, a constant without closed form, is left out, so that the loss may be below
    0. The noise comes from torch's global random state, in evaluation too.

    # Parameters

    num_samples : `int`, optional (default = `10`)
        Argmaxes for each sentence.
    temperature : `float`, optional (default = `1.0`)
        Standard deviation of the noise.

    # Errors

    `ConfigurationError` for values out of range.
    """

    requires = ("argmax",)

    def __init__(self, num_samples: int = 10, temperature: float = 1.0) -> None:
        self.num_samples = at_least_one("num_samples", num_samples)
        self.temperature = positive("temperature", temperature)

    def _conjugate(self, scores: torch.Tensor, mask: torch.Tensor, structure: LatentStructure) -> torch.Tensor:
        # shape: (num_samples, batch, dependents, heads)
        noisy = scores + self.temperature * torch.randn(self.num_samples, *scores.shape).to(scores)
        trees = structure.argmax(noisy.flatten(0, 1), mask.repeat(self.num_samples, 1)).view_as(noisy)
        return torch.where(trees > 0, noisy, 0.0).flatten(2).sum(-1).mean(0)
