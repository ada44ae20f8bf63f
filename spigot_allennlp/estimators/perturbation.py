"""
Estimators that compare the argmax with the argmax of scores shifted along the downstream gradient.
"""

from typing import Optional

import torch

from spigot_allennlp.checks import one_of, positive
from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.estimators.surrogate import PullBackDiagnostics, attach_in_one_pass, per_instance
from spigot_allennlp.functional.noise import gumbel, sum_of_gamma
from spigot_allennlp.structures import LatentStructure


@Estimator.register("blackbox")
class Blackbox(Estimator):
    """
    Differentiation of blackbox solvers (Vlastelica et al. 2020): the exact gradient of a piecewise-linear interpolation
    of `L(argmax(s))`, `ds = (argmax(s + interpolation * g) - z^) / interpolation`.

    # Parameters

    interpolation : `float`, optional (default = `1.0`)
        `lambda`: the larger, the smoother and the less faithful the interpolation.
    """

    diagnostics = (*Estimator.diagnostics, *PullBackDiagnostics.names)

    def __init__(self, interpolation: float = 1.0) -> None:
        super().__init__()
        self.interpolation = positive("interpolation", interpolation)

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        value = structure.argmax(scores, mask)
        diagnostics = PullBackDiagnostics(scores)

        def surrogate(gradient: torch.Tensor) -> torch.Tensor:
            shifted = structure.argmax(scores.detach() + self.interpolation * gradient, mask)
            difference = shifted - value
            diagnostics.record(value, shifted, difference)
            return difference / self.interpolation

        outputs, instance_loss = attach_in_one_pass(scores, value, surrogate, downstream)
        return EstimatorOutput(value, outputs, instance_loss, diagnostics.tensors)


@Estimator.register("imle")
class ImplicitMle(Estimator):
    """
    Implicit maximum likelihood estimation (Niepert, Minervini and Franceschi 2021): forward `z = argmax(s + noise)`,
    backward `ds = (z - argmax(s + noise - lambda * g)) / lambda`: towards the structure that a gradient step on the
    scores would have sampled with the same noise.

    # Parameters

    interpolation : `float`, optional (default = `1.0`)
        `lambda` of the interpolation.
    noise : `str`, optional (default = `"sum_of_gamma"`)
        Kind of noise: `"sum_of_gamma"` (section 4.2), or `"gumbel"` on each part.
    temperature : `float`, optional (default = `1.0`)
        Factor of the noise.
    adaptive : `bool`, optional (default = `False`)
        Adaptive IMLE (Minervini, Franceschi and Niepert 2023): `lambda = alpha * ||s + noise|| / ||g||` for each
        instance, where `alpha`, which starts at `interpolation`, rises while on average less than one part
        changes sign and falls while more do. `alpha` is kept in the state dict.
    """

    diagnostics = (*Estimator.diagnostics, *PullBackDiagnostics.names)

    # Of the published algorithm: the step of alpha and the decay of the running average of changes.
    _ALPHA_STEP = 1e-3
    _DECAY = 0.9

    def __init__(
        self,
        interpolation: float = 1.0,
        noise: str = "sum_of_gamma",
        temperature: float = 1.0,
        adaptive: bool = False,
    ) -> None:
        super().__init__()
        self.interpolation = positive("interpolation", interpolation)
        self.noise = one_of("noise", noise, ("sum_of_gamma", "gumbel"))
        self.temperature = positive("temperature", temperature)
        self.adaptive = adaptive
        self.alpha: Optional[torch.Tensor]
        self.average_changes: Optional[torch.Tensor]
        self.register_buffer("alpha", torch.tensor(float(interpolation)) if adaptive else None)
        self.register_buffer("average_changes", torch.tensor(1.0) if adaptive else None)

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        fixed = scores.detach()
        if self.noise == "gumbel":
            noise = gumbel(fixed)
        else:
            noise = sum_of_gamma(fixed, structure.argmax(fixed, mask).flatten(1).sum(-1))
        perturbed = fixed + self.temperature * noise
        value = structure.argmax(perturbed, mask)
        diagnostics = PullBackDiagnostics(scores)

        def surrogate(gradient: torch.Tensor) -> torch.Tensor:
            interpolation = self._interpolation(perturbed, gradient)
            target = structure.argmax(perturbed - interpolation * gradient, mask)
            difference = value - target
            diagnostics.record(value, target, difference)
            if self.adaptive:
                self._adapt(difference)
            return difference / interpolation

        outputs, instance_loss = attach_in_one_pass(scores, value, surrogate, downstream)
        return EstimatorOutput(value, outputs, instance_loss, diagnostics.tensors)

    def _interpolation(self, perturbed: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Broadcastable to the gradient, and above 0."""
        if not self.adaptive:
            return gradient.new_tensor(self.interpolation)
        size = perturbed.masked_fill(perturbed.isneginf(), 0.0).flatten(1).norm(dim=-1)
        norm = gradient.flatten(1).norm(dim=-1)
        ratio = torch.where((size > 0) & (norm > 0), size / norm, 1.0)
        return per_instance(self.alpha * ratio, gradient).to(gradient.dtype)

    def _adapt(self, difference: torch.Tensor) -> None:
        changes = difference.flatten(1).count_nonzero(-1).float().mean()
        self.average_changes.lerp_(changes, 1.0 - self._DECAY)
        step = torch.where(self.average_changes < 1.0, self._ALPHA_STEP, -self._ALPHA_STEP)
        self.alpha.add_(step).clamp_(min=self._ALPHA_STEP)
