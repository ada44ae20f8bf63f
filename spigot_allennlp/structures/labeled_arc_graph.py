from typing import Tuple

import torch

from spigot_allennlp.checks import one_of
from spigot_allennlp.functional import independent
from spigot_allennlp.functional.projections import project_budget, project_labeled_arcs_sequential
from spigot_allennlp.functional.trees import legal_arcs
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("labeled_arc_graph")
class LabeledArcGraph(LatentStructure):
    """
    Any set of arcs, each with exactly one label. Parts are `(batch, dependents, heads, labels)`: 1 where the arc is
    there and has that label; `parts.sum(-1)` are the unlabelled arcs. An absent arc scores 0.

    Each arc is one choice between its labels and absence, so everything is O(n^2 labels).

    # Parameters

    projection : `str`, optional (default = `"joint"`)
        `"joint"` is the Euclidean projection: of each arc onto `{x >= 0, sum_l x_l <= 1}`. `"sequential"` is what
        Peng et al. (2018, section 4.2) compute: the arc's value `sum_l x_l` first, where it is not positive
        the arc and its labels are 0, else it is cut to 1; then the labels are projected onto
        `{x in [0, 1], sum_l x_l = arc value}`. It lies in the polytope but is not the nearest point.

    # Errors

    `ConfigurationError` for another `projection`.
    """

    dimensions = ("batch", "tokens", "tokens", "labels")
    labeled = True

    def __init__(self, projection: str = "joint") -> None:
        self.projection = one_of("projection", projection, ("joint", "sequential"))

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return legal_arcs(mask).unsqueeze(-1).expand_as(scores)

    def _options(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Each arc as a row of options, of which the first is its absence."""
        options = torch.nn.functional.pad(scores, (1, 0)).flatten(1, 2)
        return options, legal_arcs(mask).flatten(1, 2).unsqueeze(-1).expand_as(options)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.argmax(*self._options(scores, mask))[..., 1:].reshape(scores.shape)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.log_partition(*self._options(scores, mask))

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.marginals(*self._options(scores, mask))[..., 1:].reshape(scores.shape)

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.projection == "joint":
            return project_budget(point, 1.0, self.legal_parts(point, mask))
        finite = point.masked_fill(point.isneginf(), 0.0)
        return project_labeled_arcs_sequential(finite.sum(-1), point)[1]

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        draws = independent.sample(*self._options(scores, mask), num_samples)
        return draws[..., 1:].reshape(num_samples, *scores.shape)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        options, legal = self._options(scores, mask)
        chosen, totals = independent.top_k(options, legal, k)
        chosen = chosen.masked_fill(totals.isneginf().unsqueeze(-1), 0)
        parts = options.new_zeros(*chosen.shape, options.size(-1)).scatter_(-1, chosen.unsqueeze(-1), 1.0)
        return parts[..., 1:].reshape(scores.size(0), k, *scores.shape[1:]), totals
