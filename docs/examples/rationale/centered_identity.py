from typing import Optional

import torch

from spigot_allennlp.checks import positive
from spigot_allennlp.estimators import Estimator, EstimatorOutput
from spigot_allennlp.estimators.estimator import Downstream
from spigot_allennlp.estimators.surrogate import attach_in_one_pass, per_instance
from spigot_allennlp.structures import LatentStructure


@Estimator.register("centered_identity")
class CenteredIdentity(Estimator):
    """
    The straight-through gradient without the component that moves all scores alike: `ds = step_size * (g - mean(g))`,
    with `g = g(z^)` and the mean over one instance's parts (Sahoo et al. 2023, "Backpropagation through combinatorial
    algorithms: identity with projection works", with the projection that subtracts the mean).

    Where all structures have the same number of parts, as trees do, that component changes no structure: no loss
    opposes it, and with the plain `ste` scores can drift along it without bound.

    # Parameters

    step_size : `float`, optional (default = `1.0`)
    """

    def __init__(self, step_size: float = 1.0) -> None:
        super().__init__()
        self.step_size = positive("step_size", step_size)

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        value = structure.argmax(scores, mask)
        possible = structure.legal_parts(scores, mask) & ~scores.isneginf()

        def surrogate(gradient: torch.Tensor) -> torch.Tensor:
            gradient = gradient.masked_fill(~possible, 0.0)
            number = possible.flatten(1).sum(-1).clamp(min=1)
            mean = gradient.flatten(1).sum(-1) / number
            return self.step_size * (gradient - per_instance(mean, gradient)).masked_fill(~possible, 0.0)

        outputs, instance_loss = attach_in_one_pass(scores, value, surrogate, downstream)
        return EstimatorOutput(value, outputs, instance_loss, {})
