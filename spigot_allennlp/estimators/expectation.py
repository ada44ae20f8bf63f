from typing import Optional, Tuple

import torch

from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.structures import LatentStructure


class Expectation(Estimator):
    """
    The expected loss under a distribution over a few structures, `sum_i q_i L(y_i)`, with its exact gradient: the
    downstream model runs once for each. The outputs are those at the first structure.
    """

    def _distribution(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        Structures `(batch, k, ...)` and their probabilities `(batch, k)`, differentiable in the scores. The first one
        exists; those that do not exist have probability 0.
        """
        raise NotImplementedError

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        structures, probabilities = self._distribution(scores, mask, structure)
        first = structures[:, 0]
        outputs = downstream(first)
        if "instance_loss" not in outputs:
            return EstimatorOutput(first, outputs, None, {})
        rest = (downstream(z)["instance_loss"] for z in structures[:, 1:].unbind(1))
        # shape: (batch, k)
        losses = torch.stack([outputs["instance_loss"], *rest], dim=1)
        # What has probability 0 may be no structure, with any loss.
        losses = torch.where(probabilities > 0, losses, 0.0)
        risk = (probabilities * losses).sum(-1).to(losses.dtype)
        return EstimatorOutput(first, {**outputs, "instance_loss": risk}, risk, {})
