from typing import Optional

import torch

from spigot_allennlp.estimators.estimator import Downstream, Estimator, EstimatorOutput
from spigot_allennlp.structures import LatentStructure


@Estimator.register("pipeline")
class Pipeline(Estimator):
    """
    The downstream model sees `z^ = argmax(s)`; nothing flows back. The scores learn from their own supervision only.
    """

    trains_scores = False

    def _estimate(
        self,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        downstream: Downstream,
    ) -> EstimatorOutput:
        value = structure.argmax(scores, mask)
        outputs = downstream(value)
        return EstimatorOutput(value, outputs, outputs.get("instance_loss"), {})
