from typing import Optional, Tuple

import torch

from spigot_allennlp.functional import independent
from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("categorical")
class Categorical(LatentStructure):
    """
    One of `K` values (a cluster). Parts are `(batch, K)`; `mask` is a boolean `(batch, K)`, true for the values an
    instance may take (any subset), or `None` for all.

    Gibbs marginals are the softmax, the projection is onto the simplex (sparsemax, Martins and Astudillo 2016).
    Every operation takes O(K) time and memory, `project` and `top_k` O(K log K).
    """

    dimensions = ("batch", "values")
    competing_dimensions = 1
    independent_rows = True

    def legal_parts(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        return self._check_mask(scores, mask)

    def num_structures(self, scores: torch.Tensor) -> Optional[int]:
        return scores.size(-1)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.argmax(scores.unsqueeze(1), mask.unsqueeze(1)).squeeze(1)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.log_partition(scores.unsqueeze(1), mask.unsqueeze(1))

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.marginals(scores, mask)

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return project_simplex(point, mask)

    def _sparse_distribution(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        probabilities, values = project_simplex(scores, mask).sort(dim=-1, descending=True, stable=True)
        size = max(int((probabilities > 0).sum(-1).max()), 1)
        probabilities, values = probabilities[:, :size], values[:, :size]
        parts = scores.new_zeros(*values.shape, scores.size(-1)).scatter_(-1, values.unsqueeze(-1), 1.0)
        parts = parts * (probabilities.detach() > 0).unsqueeze(-1)
        # Where there is nothing to choose, the empty structure is certain.
        certain = torch.zeros_like(probabilities)
        certain[:, 0] = (~mask.any(-1)).to(certain.dtype)
        return parts, probabilities + certain

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        return independent.sample(scores, mask, num_samples)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        values, totals = independent.top_k(scores.unsqueeze(1), mask.unsqueeze(1), k)
        parts = scores.new_zeros(scores.size(0), k, scores.size(1)).scatter_(-1, values, 1.0)
        exists = ~totals.isneginf().unsqueeze(-1)
        return parts * (mask.unsqueeze(1) & exists), totals

    def _check_mask(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        return self._check_option_mask(scores, mask)
