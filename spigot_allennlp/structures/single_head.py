from typing import Tuple

import torch

from spigot_allennlp.functional import independent
from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("single_head")
class SingleHead(LatentStructure):
    """
    Each word picks any one head, independently: cycles are allowed. Parts are `(batch, dependents, heads)`.

    This is Peng et al.'s (2018, section 3.2) relaxation of the tree polytope: its projection is one simplex
    projection a row. O(n^2) time and memory.
    """

    competing_dimensions = 1
    independent_rows = True

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.argmax(scores, self.legal_parts(scores, mask))

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.log_partition(scores, self.legal_parts(scores, mask))

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.marginals(scores, self.legal_parts(scores, mask))

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return project_simplex(point, self.legal_parts(point, mask))

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        return independent.sample(scores, self.legal_parts(scores, mask), num_samples)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        legal = self.legal_parts(scores, mask)
        heads, totals = independent.top_k(scores, legal, k)
        exists = legal.any(-1).unsqueeze(1) & ~totals.isneginf().unsqueeze(-1)
        return arcs_from_heads(heads.masked_fill(~exists, -1), scores.dtype), totals
