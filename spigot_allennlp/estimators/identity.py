from typing import Optional

import torch

from spigot_allennlp.checks import nonnegative, one_of
from spigot_allennlp.estimators.estimator import Estimator
from spigot_allennlp.estimators.relaxed import DifferentiableValue
from spigot_allennlp.estimators.surrogate import per_instance, straight_through
from spigot_allennlp.functional.noise import gumbel
from spigot_allennlp.structures import LatentStructure


@Estimator.register("identity")
class Identity(DifferentiableValue):
    """
    The identity in place of the argmax's Jacobian, after a projection `P` of the scores that leaves the argmax alone
    (Sahoo et al. 2023): forward `argmax(P(s) + noise)`, backward `ds = P'(s)^T g(z)`.

    `P` takes out of the gradient what changes no structure: a constant added to the scores of competing parts, such as
    all heads of a word, and with `"standardized"` also a factor of all scores. Without `P` this is `ste`, whose scores
    may drift without end along these directions. Where a structure may have any number of parts (`arc_graph`) none
    compete, and centering changes nothing.

    # Parameters

    projection : `str`, optional (default = `"centered"`)
        `P`: `"centered"` subtracts the mean over competing parts; `"standardized"` also divides by the L2 norm of all
        scores of the instance.
    noise_scale : `float`, optional (default = `0.0`)
        Factor of the Gumbel noise that training adds to `P(s)`.

    # Errors

    `ConfigurationError` for another `projection` and for a scale below 0.
    """

    def __init__(self, projection: str = "centered", noise_scale: float = 0.0) -> None:
        super().__init__()
        self.projection = one_of("projection", projection, ("centered", "standardized"))
        self.noise_scale = nonnegative("noise_scale", noise_scale)

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        possible = structure.legal_parts(scores, mask) & ~scores.isneginf()
        projected = self._project(scores, possible, structure)
        if self.noise_scale == 0:
            value = structure.argmax(scores, mask)
        else:
            perturbed = projected.detach() + self.noise_scale * gumbel(projected)
            value = structure.argmax(perturbed.masked_fill(~possible, -torch.inf), mask).to(scores.dtype)
        return straight_through(value, projected.to(scores.dtype))

    def _project(self, scores: torch.Tensor, possible: torch.Tensor, structure: LatentStructure) -> torch.Tensor:
        """`P(s)` in at least float32, 0 at parts that cannot be."""
        scores = structure.center(scores.to(torch.promote_types(scores.dtype, torch.float)), possible)
        if self.projection == "standardized":
            norm = scores.flatten(1).norm(dim=-1)
            scores = scores / per_instance(torch.where(norm > 0, norm, 1.0), scores)
        return scores
