from typing import Optional, Tuple

import torch

from spigot_allennlp.checks import at_least_one, one_of, positive
from spigot_allennlp.estimators.estimator import Estimator
from spigot_allennlp.estimators.relaxed import DifferentiableValue
from spigot_allennlp.estimators.surrogate import straight_through
from spigot_allennlp.functional.noise import gumbel
from spigot_allennlp.structures import LatentStructure


@Estimator.register("perturbed")
class Perturbed(DifferentiableValue):
    """
    The perturbed optimizer (Berthet et al. 2020): the downstream model sees the mean of `M` argmaxes of noisy scores, a
    Monte Carlo estimate of the smooth map `E[argmax(s + sigma Z)]`. With the density of the noise `exp(-nu(Z))`, the
    gradient is

        ds = 1 / (M sigma) sum_m <g, y_m - argmax(s)> grad nu(Z_m),    y_m = argmax(s + sigma Z_m)

    The noiseless argmax is a control variate: `grad nu(Z)` is 0 on average. The Jacobian is unbiased for every `M`. The
    gradient as a whole is unbiased where `L` is linear; otherwise `g`, too, depends on the noise, the less the greater
    `M`.

    # Parameters

    num_samples : `int`, optional (default = `10`)
        `M`, the number of argmaxes; the downstream model runs once.
    noise : `str`, optional (default = `"gaussian"`)
        Kind of noise. `"gaussian"` and `"gumbel"` are added. `"multiplicative"` multiplies: `s exp(sigma Z - sigma^2 /
        2)` with Gaussian `Z`, which keeps the signs of scores (Dalle et al. 2022); there `grad nu(Z)` is `Z / s`, and
        scores of 0, which it does not perturb, get no gradient.
    temperature : `float`, optional (default = `1.0`)
        `sigma`, the scale of the noise.

    # Errors

    `ConfigurationError` for values out of range.
    """

    def __init__(self, num_samples: int = 10, noise: str = "gaussian", temperature: float = 1.0) -> None:
        super().__init__()
        self.num_samples = at_least_one("num_samples", num_samples)
        self.noise = one_of("noise", noise, ("gaussian", "gumbel", "multiplicative"))
        self.temperature = positive("temperature", temperature)

    def _value(self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure) -> torch.Tensor:
        possible = structure.legal_parts(scores, mask) & ~scores.isneginf()
        fixed = scores.detach().to(torch.promote_types(scores.dtype, torch.float))
        # shape: (num_samples, batch, ...)
        perturbed, slopes = self._perturb(fixed.expand(self.num_samples, *fixed.shape))
        masks = None if mask is None else mask.repeat(self.num_samples, *[1] * (mask.dim() - 1))
        found = structure.argmax(perturbed.flatten(0, 1), masks).view_as(perturbed)
        deviations = found - structure.argmax(fixed, mask)
        # A linear function of the scores, whose vector-Jacobian product is the gradient above.
        finite = scores.masked_fill(~possible, 0.0).to(fixed.dtype)
        products = (slopes.masked_fill(~possible, 0.0) * finite).flatten(2).sum(-1)
        relaxed = torch.einsum("mb,mb...->b...", products, deviations) / (self.num_samples * self.temperature)
        return straight_through(found.mean(0).to(scores.dtype), relaxed.to(scores.dtype))

    def _perturb(self, scores: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Noisy scores, and `grad nu` at their noise."""
        if self.noise == "gumbel":
            noise = gumbel(scores)
            return scores + self.temperature * noise, 1.0 - (-noise).exp()
        noise = torch.randn_like(scores)
        if self.noise == "gaussian":
            return scores + self.temperature * noise, noise
        factors = (self.temperature * noise - self.temperature**2 / 2).exp()
        return scores * factors, torch.where(scores == 0, 0.0, noise / scores)
