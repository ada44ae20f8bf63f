import torch
from allennlp.nn.util import dist_reduce_sum
from allennlp.training.metrics import Metric

from spigot_allennlp.metrics.reduced_once import ReducedOnce


@Metric.register("masked_mean")
class MaskedMean(ReducedOnce):
    """
    The mean of all values under a mask, over batches and workers.
    """

    def __init__(self) -> None:
        self.reset()

    def __call__(self, values: torch.Tensor, mask: torch.Tensor) -> None:
        """
        # Parameters

        values : `torch.Tensor`
            Values to average.
        mask : `torch.Tensor`
            Boolean, of the same shape.
        """
        # Kept on the values' device: no batch waits for the GPU.
        self._total = self._total.to(values.device) + torch.where(mask, values.detach().double(), 0.0).sum()
        self._count = self._count.to(values.device) + mask.sum()

    def get_metric(self, reset: bool = False) -> float:
        """
        # Returns

        `float`
            NaN where nothing was counted.
        """
        total, count = dist_reduce_sum(float(self._total)), dist_reduce_sum(float(self._count))
        if reset:
            self.reset()
        return total / count if count else float("nan")

    def reset(self) -> None:
        self._total = torch.tensor(0.0, dtype=torch.double)
        self._count = torch.tensor(0)
