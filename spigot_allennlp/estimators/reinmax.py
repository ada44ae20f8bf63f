from typing import Optional

import torch

from spigot_allennlp.estimators.estimator import Estimator
from spigot_allennlp.estimators.relaxed import DifferentiableValue
from spigot_allennlp.estimators.surrogate import straight_through
from spigot_allennlp.structures import LatentStructure


@Estimator.register("reinmax")
class ReinMax(DifferentiableValue):
    """
    ReinMax (Liu et al. 2023): a straight-through estimator that is accurate to the second order. Forward `z ~ p`,
    backward `ds = 2 J_{pi_1}^T g(z) - 1/2 J_p^T g(z)` with `pi_1 = (p + z) / 2`, where `J_pi = diag(pi) - pi pi^T` is
    the Jacobian of the softmax whose value is `pi`.

    It rests on the trapezoid rule, `L(y) - L(z) ~ 1/2 <g(y) + g(z), y - z>`: unbiased where the downstream loss is
    quadratic, biased by that rule's error otherwise.

    # Errors

    `ConfigurationError`, when a model is built, for a structure that is not one of independent choices.
    """

    requires = ("sample", "marginals")
    needs_independent_rows = True

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        value = structure.sample(scores, mask)[0]
        probabilities = structure.marginals(scores, mask)
        middle = (probabilities.detach() + value) / 2
        # Scores whose softmax is `middle` and that move as the given ones do; -inf where these are.
        finite = scores.masked_fill(scores.isneginf(), 0.0)
        relaxed = structure.marginals(middle.log() + (finite - finite.detach()), mask)
        return straight_through(value, 2 * relaxed - probabilities / 2)
