from typing import Optional, Tuple

import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.functional import independent, subsets
from spigot_allennlp.functional.projections import project_box, project_budget
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("arc_graph")
class ArcGraph(LatentStructure):
    """
    Any set of arcs: re-entrant, disconnected or cyclic. Parts are `(batch, dependents, heads)`; an arc from ROOT marks
    a top node, and nothing is required of those.

    Without a bound each arc is a Bernoulli variable: argmax thresholds at 0 (an arc of score exactly 0 is out), the
    marginals are sigmoids, the projection clips to the unit box; O(n^2). With one, rows are coupled by
    dynamic programming in O(n^2 max_heads), and the projection is onto the box with a budget.

    # Parameters

    max_heads : `int`, optional (default = `None`)
        Largest number of heads of a word.

    # Errors

    `ConfigurationError` for a bound below 1.
    """

    def __init__(self, max_heads: Optional[int] = None) -> None:
        if max_heads is not None and max_heads < 1:
            raise ConfigurationError(f"max_heads is {max_heads}; valid: a positive integer, or null for no bound")
        self.max_heads = max_heads

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.max_heads is not None:
            return subsets.argmax(scores, self.legal_parts(scores, mask), self.max_heads)
        # Illegal parts score 0 and are out.
        return (scores > 0).to(scores.dtype)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        legal = self.legal_parts(scores, mask)
        if self.max_heads is not None:
            return subsets.log_partition(scores, legal, self.max_heads)
        return torch.nn.functional.softplus(scores, threshold=50.0).masked_fill(~legal, 0.0).flatten(1).sum(-1)

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.max_heads is not None:
            return super()._marginals(scores, mask)
        return scores.sigmoid().masked_fill(~self.legal_parts(scores, mask), 0.0)

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.max_heads is not None:
            return project_budget(point, float(self.max_heads), self.legal_parts(point, mask))
        return project_box(point)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        if self.max_heads is not None:
            return subsets.sample(scores, self.legal_parts(scores, mask), self.max_heads, num_samples)
        probabilities = self._marginals(scores.double(), mask).expand(num_samples, -1, -1, -1)
        return torch.bernoulli(probabilities).to(scores.dtype)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        legal = self.legal_parts(scores, mask)
        if self.max_heads is not None:
            return subsets.top_k(scores, legal, self.max_heads, k)
        # Each arc chooses between out (score 0) and in.
        options = torch.stack([torch.zeros_like(scores), scores], dim=-1).flatten(1, 2)
        chosen, totals = independent.top_k(options, legal.flatten(1).unsqueeze(-1).expand_as(options), k)
        exists = ~totals.isneginf().unsqueeze(-1)
        return (chosen * exists).view(scores.size(0), k, *scores.shape[1:]).to(scores.dtype), totals
