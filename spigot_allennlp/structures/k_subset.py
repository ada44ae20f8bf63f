import functools
from typing import Optional, Tuple

import numpy as np
import torch

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.functional.hypergraphs import Hypergraph, hypergraph
from spigot_allennlp.functional.projections import project_budget
from spigot_allennlp.functional.runtime import FORBIDDEN, to_numpy
from spigot_allennlp.structures.derivation import Derivation
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("k_subset")
class KSubset(Derivation):
    """
    `k` of the options, or at most `k`, such as the words of a rationale. Parts are `(batch, options)`; `mask` is a
    boolean `(batch, options)`, true for the options of an instance (any subset), or `None` for all.

    Argmax takes the best options, the log-partition is the logarithm of an elementary symmetric polynomial, in O(n k),
    and the projection is onto the capped simplex `{0 <= x <= 1, sum x = k}`, or `<= k` (Blondel et al. 2020).

    # Parameters

    k : `int`
        Number of options to choose.
    exactly : `bool`, optional (default = `True`)
        Whether fewer than `k` options are too few.

    # Errors

    `ConfigurationError` for a `k` below 1. Every operation raises `ValueError` for an instance with options, but fewer
    than exactly `k`.
    """

    dimensions = ("batch", "options")

    def __init__(self, k: int, exactly: bool = True) -> None:
        self.k = at_least_one("k", k)
        self.exactly = exactly
        self.competing_dimensions = 1 if exactly else 0

    def legal_parts(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        return self._check_mask(scores, mask)

    def _check_mask(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> torch.Tensor:
        mask = self._check_option_mask(scores, mask)
        if self.exactly:
            number = mask.sum(-1)
            rows = ((number > 0) & (number < self.k)).nonzero().flatten().tolist()
            if rows:
                raise ValueError(
                    f"k is {self.k}, but rows {rows} of the batch have {number[rows].tolist()} options; valid: at "
                    "least k options, or 'exactly: false'"
                )
        return mask

    def _hypergraph(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[Hypergraph, np.ndarray]:
        options = scores.size(1)
        # The node of so many options chosen from all, or of any number of them.
        chosen = 1 + (options - 1) * (self.k + 1) + self.k + (0 if self.exactly else 1)
        return _choices(options, self.k), np.where(to_numpy(mask.any(-1)), chosen, 0)

    def _flat(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # The hypergraph covers all options.
        return scores.masked_fill(~mask, -torch.inf)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        finite = self._flat(scores.clamp(min=FORBIDDEN), mask)
        # Not `topk`, which does not say which of equals it takes.
        best = finite.sort(dim=-1, descending=True, stable=True).indices[:, : self.k]
        taken = mask if self.exactly else mask & (scores > 0)
        return torch.zeros_like(scores).scatter(-1, best, 1.0) * taken

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.exactly:
            # The same constant for all options moves no projection. This one leaves k of them at 1 or above, so that
            # `sum x <= k` holds with equality.
            last = self._flat(point.detach(), mask).topk(min(self.k, point.size(1)), dim=-1).values[:, -1:]
            point = point - last.masked_fill(last.isneginf(), 0.0) + 1
        return project_budget(point, float(self.k), mask)


@functools.lru_cache(maxsize=16)
def _choices(options: int, k: int) -> Hypergraph:
    """
    For each option, a node for each number of those up to it that are chosen; and one for any number of all.
    """
    edges = []
    number = np.arange(k + 1)
    for option in range(options):
        nodes = 1 + option * (k + 1) + number
        # From nothing, before the first option.
        before = nodes - (k + 1) if option else number[:1]
        edges.append((nodes[: len(before)], before, 0, options))
        edges.append((nodes[1 : len(before) + 1], before[:k], 0, option))
    if options:
        edges.append((1 + options * (k + 1), 1 + (options - 1) * (k + 1) + number, 0, options))
    return hypergraph(edges, 2 + options * (k + 1))
