import functools
from typing import Tuple

import numpy as np
import torch

from spigot_allennlp.functional.hypergraphs import Hypergraph, hypergraph
from spigot_allennlp.functional.runtime import to_numpy
from spigot_allennlp.structures.derivation import Derivation
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("semi_markov")
class SemiMarkov(Derivation):
    """
    Segmentations of a sequence into labeled segments of limited length (Sarawagi and Cohen 2004). Parts are `(batch,
    positions, lengths, previous labels, labels)`: `scores[b, t, l, i, j]` scores a segment with label `j` of the
    `l + 1` positions from `t` on, after a segment with label `i`. The first segment has no predecessor: its parts stand
    in row `i = 0`. The longest segment has as many positions as the scores have lengths. `mask` is `(batch,
    positions)`, true for real tokens; there is no ROOT.

    Argmax is the Viterbi algorithm over segments, the log-partition and marginals are forward-backward: O(n L K^2) time
    and memory for n positions, L lengths and K labels. The projection is SparseMAP (Niculae et al. 2018).
    """

    dimensions = ("batch", "positions", "lengths", "labels", "labels")

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        positions, lengths = scores.shape[1:3]
        # A segment must end at a real token.
        ends = torch.nn.functional.pad(mask, (0, lengths)).unfold(1, lengths, 1)[:, :positions]
        legal = ends.unsqueeze(-1).unsqueeze(-1).repeat(1, 1, 1, *scores.shape[3:])
        legal[:, :1, :, 1:] = False
        return legal

    def _check_mask(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if scores.size(3) != scores.size(4) or scores.size(2) == 0:
            raise ValueError(f"scores must be ({', '.join(self.dimensions)}), not {tuple(scores.shape)}")
        return self._check_token_mask(mask, (scores.size(0), scores.size(1)))

    def _hypergraph(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[Hypergraph, np.ndarray]:
        num_tokens = to_numpy(mask.sum(-1))
        return _segmentations(*scores.shape[1:4]), num_tokens * (scores.size(4) + 1)


@functools.lru_cache(maxsize=16)
def _segmentations(positions: int, lengths: int, labels: int) -> Hypergraph:
    """
    For each end, a node for each label of the segment that ends there, and one for any label: the goal where the
    sequence ends.
    """
    label = np.arange(labels)
    stride = labels + 1
    edges = []
    for end in range(positions):
        nodes = 1 + end * stride + label
        for length in range(min(lengths, end + 1)):
            start = end - length
            # None before the first.
            previous = label[:1] if start == 0 else label
            tails = 0 * previous if start == 0 else 1 + (start - 1) * stride + previous
            parts = ((start * lengths + length) * labels + previous[:, None]) * labels + label
            edges.append((nodes, tails[:, None], 0, parts))
        edges.append((nodes[0] + labels, nodes, 0, positions * lengths * labels * labels))
    return hypergraph(edges, 1 + positions * stride)
