"""
Estimators whose latent value is itself a differentiable function of the scores, in whole or in the backward pass.
"""

from typing import Optional

import torch

from spigot_allennlp.checks import positive
from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.estimators.surrogate import straight_through
from spigot_allennlp.functional.noise import gumbel
from spigot_allennlp.structures import LatentStructure


class DifferentiableValue(Estimator):
    """
    One run of the downstream model at `_value`, through which autograd reaches the scores. Linear in the downstream
    gradient, so that the loss's scale needs no care.
    """

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        raise NotImplementedError

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        value = self._value(scores, mask, structure)
        outputs = downstream(value)
        return EstimatorOutput(value, outputs, outputs.get("instance_loss"), {})


class _Relaxation(DifferentiableValue):
    """
    A value inside the polytope.

    # Parameters

    relaxed_evaluation : `bool`, optional (default = `False`)
        Whether evaluation, too, uses the (noiseless) relaxation; otherwise argmax.
    """

    def __init__(self, relaxed_evaluation: bool = False) -> None:
        super().__init__()
        self.relaxed_evaluation = relaxed_evaluation

    def _noiseless_value(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> torch.Tensor:
        return self._value(scores, mask, structure)

    def evaluation_value(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> torch.Tensor:
        if self.relaxed_evaluation:
            return self._noiseless_value(scores, mask, structure)
        return super().evaluation_value(scores, mask, structure)


@Estimator.register("marginals")
class Marginals(_Relaxation):
    """
    Structured attention (Kim et al. 2017): the downstream model sees the Gibbs marginals `p^`; the gradient is exact.
    Parameters as in `relaxed_evaluation` of `Estimator`.
    """

    requires = ("marginals",)

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        return structure.marginals(scores, mask)


@Estimator.register("sparsemap")
class SparseMap(_Relaxation):
    """
    SparseMAP (Niculae et al. 2018): the downstream model sees `Proj_M(s)`; the gradient is exact. Parameters as in
    `relaxed_evaluation` of `Estimator`.
    """

    requires = ("project",)

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        return structure.project(scores, mask)


class _GumbelRelaxation(_Relaxation):
    """
    A relaxation of scores with Gumbel noise, at a temperature.
    """

    def __init__(self, temperature: float = 1.0, relaxed_evaluation: bool = False) -> None:
        super().__init__(relaxed_evaluation)
        self.temperature = positive("temperature", temperature)

    def _relax(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        raise NotImplementedError

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        return self._relax((scores + gumbel(scores)) / self.temperature, mask, structure)

    def _noiseless_value(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> torch.Tensor:
        return self._relax(scores / self.temperature, mask, structure)


@Estimator.register("gumbel_softmax")
class GumbelSoftmax(_GumbelRelaxation):
    """
    `marginals((s + Gumbel) / temperature)`, with the exact gradient (Jang et al. 2017; Maddison et al. 2017; on
    structures: Corro and Titov 2019).

    # Parameters

    temperature : `float`, optional (default = `1.0`)
        Divisor of the perturbed scores; the lower, the closer to argmax.
    relaxed_evaluation : `bool`, optional (default = `False`)
        Whether evaluation uses `marginals(s / temperature)`; otherwise argmax.

    # Errors

    `ConfigurationError` for a temperature that is not above 0.
    """

    requires = ("marginals",)

    def _relax(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        return structure.marginals(scores, mask)


@Estimator.register("gumbel_sparsemap")
class GumbelSparseMap(_GumbelRelaxation):
    """
    `Proj((s + Gumbel) / temperature)`, with the exact gradient: the stochastic softmax trick with a Euclidean
    regularizer (Paulus et al. 2020). The value is sparse: parts of no active structure are exactly 0.

    # Parameters

    temperature : `float`, optional (default = `1.0`)
        Divisor of the perturbed scores; the lower, the closer to argmax.
    relaxed_evaluation : `bool`, optional (default = `False`)
        Whether evaluation uses `Proj(s / temperature)`; otherwise argmax.

    # Errors

    `ConfigurationError` for a temperature that is not above 0.
    """

    requires = ("project",)

    def _relax(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        return structure.project(scores, mask)


@Estimator.register("ste_marginals")
class StraightThroughMarginals(DifferentiableValue):
    """
    STE-S: forward `z^ = argmax(s)`, backward as if it were the marginals, `J_p(s)^T g(z^)` with the full Jacobian
    (Mihaylova et al. 2020, section 3.1).
    """

    requires = ("marginals",)

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        return straight_through(structure.argmax(scores, mask), structure.marginals(scores, mask))


@Estimator.register("perturb_and_map")
class PerturbAndMap(DifferentiableValue):
    """
    Perturb-and-MAP with a straight-through gradient (Corro and Titov 2019): forward `argmax(s + Gumbel)`, backward
    through `marginals((s + Gumbel) / temperature)`.

    # Parameters

    temperature : `float`, optional (default = `1.0`)
        Divisor of the perturbed scores; the lower, the closer to argmax.
    """

    requires = ("marginals",)

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        perturbed = scores + gumbel(scores)
        return straight_through(
            structure.argmax(perturbed, mask), structure.marginals(perturbed / self.temperature, mask)
        )
