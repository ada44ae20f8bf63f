import math

import torch
from allennlp.training.metrics import Metric

from spigot_allennlp.metrics.masked_mean import MaskedMean
from spigot_allennlp.metrics.reduced_once import ReducedOnce


@Metric.register("accuracy")
class Accuracy(ReducedOnce):
    """
    The fraction of instances whose best-scored class is the gold one, over batches and workers.
    """

    def __init__(self) -> None:
        self._mean = MaskedMean()

    def __call__(self, predictions: torch.Tensor, gold_labels: torch.Tensor) -> None:
        """
        # Parameters

        predictions : `torch.Tensor`
            `(batch, classes)`, scores.
        gold_labels : `torch.Tensor`
            `(batch,)`.
        """
        correct = predictions.argmax(-1) == gold_labels
        self._mean(correct, torch.ones_like(correct))

    def get_metric(self, reset: bool = False) -> float:
        """
        # Returns

        `float`
            0 where nothing was counted.
        """
        mean = self._mean.get_metric(reset)
        return 0.0 if math.isnan(mean) else mean

    def reset(self) -> None:
        self._mean.reset()
