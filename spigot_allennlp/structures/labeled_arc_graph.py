from typing import Tuple

import torch

from spigot_allennlp.checks import one_of
from spigot_allennlp.functional import independent
from spigot_allennlp.functional.projections import project_labeled_arcs_jointly, project_labeled_arcs_sequential
from spigot_allennlp.functional.trees import legal_arcs
from spigot_allennlp.structures.latent_structure import LatentStructure


@LatentStructure.register("labeled_arc_graph")
class LabeledArcGraph(LatentStructure):
    """
    Any set of arcs, each with exactly one label. Parts are `(batch, dependents, heads, 1 + labels)`: entry 0 is the arc
    itself, the others are its labels, so that `z[..., 0] = z[..., 1:].sum(-1)`. Both kinds have scores, which add up,
    and each gets a gradient of its own (Peng et al. 2018, section 4.2). An absent arc scores 0.

    Each arc is one choice between its labels and absence, so everything is O(n^2 labels).

    # Parameters

    projection : `str`, optional (default = `"joint"`)
        `"joint"` is the Euclidean projection in all parts: of each arc onto `{a <= 1, x >= 0, sum_l x_l = a}`.
        `"sequential"` is what Peng et al. compute: where the arc's value is not positive, the arc and its labels are 0,
        else it is cut to 1; then the labels are projected onto `{x in [0, 1], sum_l x_l = arc's value}`. It lies in the
        polytope but is not the nearest point.

    # Errors

    `ConfigurationError` for another `projection`.
    """

    dimensions = ("batch", "tokens", "tokens", "1 + labels")
    labeled = True

    def __init__(self, projection: str = "joint") -> None:
        self.projection = one_of("projection", projection, ("joint", "sequential"))

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return legal_arcs(mask).unsqueeze(-1).expand_as(scores)

    def _options(self, scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Each arc as a row of options: the first is its absence, and the others are its labels."""
        labeled = scores[..., :1] + scores[..., 1:]
        options = torch.nn.functional.pad(labeled, (1, 0)).flatten(1, 2)
        return options, legal_arcs(mask).flatten(1, 2).unsqueeze(-1).expand_as(options)

    @staticmethod
    def _parts(options: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The parts of the options, `(..., arcs, 1 + labels)`, in the scores' shape after the leading dimensions."""
        labels = options[..., 1:]
        parts = torch.cat([labels.sum(-1, keepdim=True), labels], dim=-1)
        return parts.unflatten(-2, scores.shape[1:3])

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._parts(independent.argmax(*self._options(scores, mask)), scores)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return independent.log_partition(*self._options(scores, mask))

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._parts(independent.marginals(*self._options(scores, mask)), scores)

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        point = point.masked_fill(~self.legal_parts(point, mask), -torch.inf)
        project = project_labeled_arcs_jointly if self.projection == "joint" else project_labeled_arcs_sequential
        arcs, labels = project(point[..., 0], point[..., 1:])
        return torch.cat([arcs.unsqueeze(-1), labels], dim=-1)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        return self._parts(independent.sample(*self._options(scores, mask), num_samples), scores)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        options, legal = self._options(scores, mask)
        chosen, totals = independent.top_k(options, legal, k)
        chosen = chosen.masked_fill(totals.isneginf().unsqueeze(-1), 0)
        parts = options.new_zeros(*chosen.shape, options.size(-1)).scatter_(-1, chosen.unsqueeze(-1), 1.0)
        return self._parts(parts, scores), totals
