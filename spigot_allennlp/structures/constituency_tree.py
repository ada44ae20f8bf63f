import functools
from typing import Tuple

import numpy as np
import torch

from spigot_allennlp.functional.hypergraphs import Hypergraph, hypergraph
from spigot_allennlp.functional.runtime import to_numpy
from spigot_allennlp.structures.derivation import Derivation
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("constituency_tree")
class ConstituencyTree(Derivation):
    """
    Binary bracketings of a sequence. Parts are spans, `(batch, first positions, last positions)`: `scores[b, i, j]`
    scores the constituent of the positions from `i` to `j`, both included. A tree of n tokens has 2n - 1 constituents:
    every token, the whole, and what lies between. `mask` is `(batch, positions)`, true for real tokens; there is no
    ROOT.

    Argmax is the CKY algorithm, the log-partition and marginals are inside-outside: O(n^3) time and memory. The
    projection is SparseMAP (Niculae et al. 2018).
    """

    dimensions = ("batch", "positions", "positions")
    competing_dimensions = 2

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (mask.unsqueeze(-1) & mask.unsqueeze(-2)).triu()

    def _hypergraph(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[Hypergraph, np.ndarray]:
        num_tokens = to_numpy(mask.sum(-1))
        return _bracketings(scores.size(1)), num_tokens * (num_tokens + 1) // 2


def _span(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The node of a span: by the last position, the shortest span first, so that a shorter sequence has the same."""
    return 1 + last * (last + 1) // 2 + last - first


@functools.lru_cache(maxsize=16)
def _bracketings(positions: int) -> Hypergraph:
    edges = []
    for last in range(positions):
        edges.append((_span(last, last), 0, 0, last * positions + last))
        for first in range(last):
            split = np.arange(first, last)
            edges.append((_span(first, last), _span(first, split), _span(split + 1, last), first * positions + last))
    return hypergraph(edges, 1 + positions * (positions + 1) // 2)
