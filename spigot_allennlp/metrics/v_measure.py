from typing import Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import is_distributed
from allennlp.nn.util import dist_reduce, dist_reduce_sum
from allennlp.training.metrics import Metric

from spigot_allennlp.metrics.reduced_once import ReducedOnce


@Metric.register("v_measure")
class VMeasure(ReducedOnce):
    """
    The V-measure of a clustering (Rosenberg and Hirschberg 2007), the harmonic mean of its homogeneity and its
    completeness: with predicted clusters `K` and gold clusters `C`,

        h = 1 - H(C | K) / H(C),  c = 1 - H(K | C) / H(K),  V = 2 h c / (h + c),

    where `h` (`c`) is 1 if there is but one gold (predicted) cluster. How the clusters are numbered does not matter.

    What is counted is how often each predicted cluster meets each gold one.
    """

    def __init__(self) -> None:
        self.reset()

    def __call__(
        self, predictions: torch.Tensor, gold_labels: torch.Tensor, mask: Optional[torch.Tensor] = None
    ) -> None:
        """
        # Parameters

        predictions, gold_labels : `torch.Tensor`
            Indices of clusters, from 0, of one shape.
        mask : `torch.Tensor`, optional
            Boolean, of the same shape: the instances to count (default: all).

        # Errors

        `ConfigurationError` for shapes that differ and negative indices.
        """
        predictions, gold = predictions.detach(), gold_labels.detach()
        if predictions.shape != gold.shape or (mask is not None and mask.shape != gold.shape):
            raise ConfigurationError(
                f"predictions have shape {tuple(predictions.shape)}, gold labels {tuple(gold.shape)}"
                + ("" if mask is None else f", the mask {tuple(mask.shape)}")
                + "; valid: one shape"
            )
        if mask is not None:
            predictions, gold = predictions[mask], gold[mask]
        predictions, gold = predictions.reshape(-1).long(), gold.reshape(-1).long()
        if not len(gold):
            return
        if min(int(predictions.min()), int(gold.min())) < 0:
            raise ConfigurationError("a cluster has a negative index; valid: integers >= 0")
        num_predicted, num_gold = int(predictions.max()) + 1, int(gold.max()) + 1
        counts = torch.bincount(predictions * num_gold + gold, minlength=num_predicted * num_gold)
        counts = counts.view(num_predicted, num_gold).cpu()
        size = [max(mine, theirs) for mine, theirs in zip(self._counts.shape, counts.shape)]
        self._counts = _padded(self._counts, *size) + _padded(counts, *size)

    def get_metric(self, reset: bool = False) -> float:
        """
        # Returns

        `float`
            Between 0 and 1; 0 where nothing was counted.
        """
        counts = self._counts
        if is_distributed():
            # A worker may not have seen every cluster.
            size = [dist_reduce(n, torch.distributed.ReduceOp.MAX) for n in counts.shape]
            counts = dist_reduce_sum(_padded(counts, *size)).cpu()
        if reset:
            self.reset()
        total = counts.sum()
        if total == 0:
            return 0.0
        joint = counts.double() / total
        predicted_entropy, gold_entropy = _entropy(joint.sum(1)), _entropy(joint.sum(0))
        information = predicted_entropy + gold_entropy - _entropy(joint.flatten())
        homogeneity = information / gold_entropy if gold_entropy > 0 else 1.0
        completeness = information / predicted_entropy if predicted_entropy > 0 else 1.0
        if homogeneity + completeness <= 0:
            return 0.0
        # Rounding may leave a little less than 0, or more than 1.
        return min(max(2 * homogeneity * completeness / (homogeneity + completeness), 0.0), 1.0)

    def reset(self) -> None:
        # shape: (predicted clusters, gold clusters), as far as seen
        self._counts = torch.zeros(0, 0, dtype=torch.long)


def _padded(counts: torch.Tensor, num_predicted: int, num_gold: int) -> torch.Tensor:
    rows, columns = counts.shape
    return torch.nn.functional.pad(counts, (0, num_gold - columns, 0, num_predicted - rows))


def _entropy(probabilities: torch.Tensor) -> float:
    return float(torch.special.entr(probabilities).sum())
