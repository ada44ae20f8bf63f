from typing import Tuple

import torch

from spigot_allennlp.functional import linear_chain
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("linear_chain")
class LinearChain(LatentStructure):
    """
    Tag sequences. Parts are `(batch, positions, previous tags, tags)`: `scores[b, t, i, j]` scores tag `i` at `t - 1`
    followed by tag `j` at `t`. Position 0 has no predecessor: its parts stand in row `i = 0` and the other rows
    are illegal. `mask` is `(batch, positions)`, true for real tokens; there is no ROOT.

    Argmax is the Viterbi algorithm, the log-partition and marginals are forward-backward: O(n K^2) time and
    memory. The projection onto the convex hull of the sequences is SparseMAP (Niculae et al. 2018).
    """

    dimensions = ("batch", "positions", "tags", "tags")
    competing_dimensions = 2

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        legal = mask.view(*mask.shape, 1, 1).repeat(1, 1, *scores.shape[2:])
        legal[:, :1, 1:] = False
        return legal

    def _check_mask(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if scores.size(2) != scores.size(3):
            raise ValueError(f"scores must be ({', '.join(self.dimensions)}), not {tuple(scores.shape)}")
        return self._check_token_mask(mask, (scores.size(0), scores.size(1)))

    def _parts(self, tags: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return linear_chain.parts_from_tags(tags, scores.size(-1), scores.dtype)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._parts(linear_chain.chain_argmax(scores, mask), scores)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return linear_chain.chain_log_partition(scores, mask)

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return linear_chain.chain_marginals(scores, mask)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        return self._parts(linear_chain.chain_sample(scores, mask, num_samples), scores)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        tags, totals = linear_chain.chain_top_k(scores, mask, k)
        return self._parts(tags, scores), totals
