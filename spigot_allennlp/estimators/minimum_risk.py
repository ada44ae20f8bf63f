from typing import Optional

import torch

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.structures import Categorical, LatentStructure


@Estimator.register("minimum_risk")
class MinimumRisk(Estimator):
    """
    Minimises the expected loss `E_p[L]` itself (Smith and Eisner 2006; Shen et al. 2016): over all values of a
    categorical variable, over the `k` best structures with their probabilities renormalised otherwise. The gradient
    is exact for that sum. The outputs are those at the best structure.

    # Parameters

    k : `int`, optional (default = `10`)
        How many structures, and so how many runs of the downstream model; a categorical variable always takes all of
        its values.

    # Errors

    `ConfigurationError` for `k` below 1.
    """

    requires = ("top_k",)

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        self.k = at_least_one("k", k)

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        k = scores.size(-1) if isinstance(structure, Categorical) else self.k
        # shape: (batch, k, ...), (batch, k)
        structures, totals = structure.top_k(scores, mask, k)
        best = structures[:, 0]
        outputs = downstream(best)
        if "instance_loss" not in outputs:
            return EstimatorOutput(best, outputs, None, {})
        rest = (downstream(z)["instance_loss"] for z in structures[:, 1:].unbind(1))
        # shape: (batch, k)
        losses = torch.stack([outputs["instance_loss"], *rest], dim=1)
        exists = ~totals.isneginf()
        risk = torch.where(exists, totals.softmax(-1) * losses, 0.0).sum(-1).to(losses.dtype)
        return EstimatorOutput(best, {**outputs, "instance_loss": risk}, risk, {})
