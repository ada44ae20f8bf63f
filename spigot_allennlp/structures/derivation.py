from typing import Tuple

import numpy as np
import torch

from spigot_allennlp.functional.hypergraphs import (
    Hypergraph,
    hypergraph_argmax,
    hypergraph_log_partition,
    hypergraph_marginals,
    hypergraph_sample,
    hypergraph_top_k,
)
from spigot_allennlp.structures.latent_structure import LatentStructure


class Derivation(LatentStructure):
    """
    Structures that a dynamic program derives. A subclass gives the program as a hypergraph
    (`spigot_allennlp.functional.hypergraphs`), and gets every operation, the projection by the active-set method on top
    of the argmax.
    """

    def _hypergraph(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[Hypergraph, np.ndarray]:
        """
        # Returns

        `Tuple[Hypergraph, np.ndarray]`
            A hypergraph whose parts are one instance's parts, flattened; and, `(batch,)`, each instance's goal: 0 for
            one that is all padding. Of `scores` only the shape counts.
        """
        raise NotImplementedError

    def _flat(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The scores of the hypergraph's parts, `(batch, parts)`."""
        return scores.flatten(1)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        parts = hypergraph_argmax(self._flat(scores, mask), *self._hypergraph(scores, mask))
        return parts.reshape(scores.shape).to(scores.dtype)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return hypergraph_log_partition(self._flat(scores, mask), *self._hypergraph(scores, mask))

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return hypergraph_marginals(self._flat(scores, mask), *self._hypergraph(scores, mask)).view(scores.shape)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        parts = hypergraph_sample(self._flat(scores, mask), *self._hypergraph(scores, mask), num_samples)
        return parts.reshape(num_samples, *scores.shape).to(scores.dtype)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        parts, totals = hypergraph_top_k(self._flat(scores, mask), *self._hypergraph(scores, mask), k)
        return parts.reshape(len(scores), k, *scores.shape[1:]).to(scores.dtype), totals
