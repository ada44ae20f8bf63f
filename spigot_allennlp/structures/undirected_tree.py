from typing import Tuple

import torch

from spigot_allennlp.functional.nonprojective import (
    nonprojective_heads,
    nonprojective_log_partition,
    nonprojective_marginals,
    nonprojective_sample,
    nonprojective_top_k,
)
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("undirected_tree")
class UndirectedTree(LatentStructure):
    """
    Spanning trees of the complete graph over the tokens. Parts are `(batch, nodes, nodes)`, symmetric: an edge is
    both `[b, i, j]` and `[b, j, i]`, and its score is the sum of both. `mask` is `(batch, tokens)`, true for real
    tokens; there is no ROOT.

    Every undirected tree is one arborescence from token 0, so the algorithms are `nonprojective_tree`'s: a
    maximum spanning tree in O(n^2), sums by the matrix-tree theorem in O(n^3). The projection is SparseMAP (Niculae et
    al. 2018).
    """

    # Not arcs from heads to dependents, which models take.
    dimensions = ("batch", "nodes", "nodes")
    competing_dimensions = 2

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        legal = mask.unsqueeze(-1) & mask.unsqueeze(-2)
        return legal & ~torch.eye(mask.size(-1), dtype=torch.bool, device=mask.device)

    @staticmethod
    def _arcs(scores: torch.Tensor) -> torch.Tensor:
        """Scores of the arcs of an arborescence from token 0, in float64, which holds the sums."""
        scores = scores.double()
        return scores + scores.mT

    @staticmethod
    def _edges(arcs: torch.Tensor) -> torch.Tensor:
        return arcs + arcs.mT

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        heads = nonprojective_heads(self._arcs(scores), mask, single_root=False)
        return self._edges(arcs_from_heads(heads, scores.dtype))

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return nonprojective_log_partition(self._arcs(scores), mask, single_root=False)

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._edges(nonprojective_marginals(self._arcs(scores), mask, single_root=False))

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        heads = nonprojective_sample(self._arcs(scores), mask, num_samples, single_root=False)
        return self._edges(arcs_from_heads(heads, scores.dtype))

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        heads, totals = nonprojective_top_k(self._arcs(scores), mask, k, single_root=False)
        return self._edges(arcs_from_heads(heads, scores.dtype)), totals
