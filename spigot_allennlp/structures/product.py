from typing import Optional, Tuple

import torch

from spigot_allennlp.functional import independent
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("product")
class Product(LatentStructure):
    """
    Several independent structures of one kind for each instance, such as a tree over each of two sentences. Parts are
    `(batch, factors, ...)` with the factor's own parts last, `mask` is `(batch, factors, ...)` likewise.

    To an estimator it is one structure: all factors share the instance's loss, are drawn together, and a pull-back's
    norm runs over all of them. `Y` is the Cartesian product of the factors' feasible sets, so that argmax, marginals
    and projection are the factors' own, log-partitions and scores add up, and the `k` best are the best
    combinations of each factor's `k` best. Every operation costs what it costs for a batch of `batch * factors`.

    # Parameters

    factor : `LatentStructure`
        The structure of each factor.
    """

    def __init__(self, factor: LatentStructure) -> None:
        self.factor = factor
        self.dimensions = (*factor.dimensions[:1], "factors", *factor.dimensions[1:])
        self.competing_dimensions = factor.competing_dimensions
        self.independent_rows = factor.independent_rows
        self.labeled = factor.labeled
        self.always_tree = factor.always_tree
        self.single_root = factor.single_root

    def legal_parts(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        folded = None if mask is None else mask.flatten(0, 1)
        return self.factor.legal_parts(scores.flatten(0, 1), folded).unflatten(0, scores.shape[:2])

    def supports(self, operation: str) -> bool:
        return self.factor.supports(operation)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.factor._argmax(*_fold(scores, mask)).unflatten(0, scores.shape[:2])

    def _total(self, parts: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        totals = self.factor._total(parts.flatten(0, 1), *_fold(scores, mask))
        return totals.unflatten(0, scores.shape[:2]).sum(-1)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.factor._log_partition(*_fold(scores, mask)).unflatten(0, scores.shape[:2]).sum(-1)

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.factor._marginals(*_fold(scores, mask)).unflatten(0, scores.shape[:2])

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.factor._project(*_fold(point, mask)).unflatten(0, point.shape[:2])

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        return self.factor._sample(*_fold(scores, mask), num_samples).unflatten(1, scores.shape[:2])

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        parts, totals = self.factor._top_k(*_fold(scores, mask), k)
        # shape: (batch, factors, k, ...), (batch, factors, k)
        parts, totals = parts.unflatten(0, scores.shape[:2]), totals.unflatten(0, scores.shape[:2])
        # Each factor chooses one of its own k best; those that do not exist score -inf.
        choices, totals = independent.top_k(totals, torch.ones_like(totals, dtype=torch.bool), k)
        # shape: (batch, factors, k, 1, ...), broadcast over the parts
        index = choices.transpose(1, 2).view(*parts.shape[:3], *[1] * (parts.dim() - 3)).expand_as(parts)
        chosen = parts.gather(2, index).transpose(1, 2)
        return chosen * (~totals.isneginf()).view(*totals.shape, *[1] * (chosen.dim() - 2)), totals

    def _check_mask(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        if mask is not None and mask.shape[:2] != scores.shape[:2]:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, the scores {tuple(scores.shape)}")
        # One by one, so that an error names the rows of the batch.
        masks = [None] * scores.size(1) if mask is None else mask.unbind(1)
        return torch.stack([self.factor._check_mask(*factor) for factor in zip(scores.unbind(1), masks)], dim=1)

    def _name(self) -> str:
        return f"{super()._name()} of {self.factor._name()}"


def _fold(scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Factors as so many more rows of the batch."""
    return scores.flatten(0, 1), mask.flatten(0, 1)
