from typing import Dict, Optional

import torch
from allennlp.nn.util import dist_reduce_sum
from allennlp.training.metrics import Metric

from spigot_allennlp.metrics.edge_scores import precision_recall_f1
from spigot_allennlp.metrics.reduced_once import ReducedOnce


@Metric.register("dependency_graph_f1")
class DependencyGraphF1(ReducedOnce):
    """
    Labeled and unlabeled precision, recall and F1 of the arcs of a graph, and the fraction of graphs that are
    exactly right: the evaluation of SemEval 2014 Task 8 and 2015 Task 18. **Top nodes count as arcs** from a virtual
    node, whose label is right whenever the arc is (Oepen et al. 2014, section 4).

    Everything is summed over the corpus (micro-averaged) and over the workers of a distributed run.
    """

    # The rows of counts.
    _PREDICTED, _GOLD, _UNLABELED, _LABELED, _SENTENCES, _EXACT, _EXACT_LABELED = range(7)

    def __init__(self) -> None:
        self._counts = torch.zeros(7, dtype=torch.long)

    def __call__(
        self,
        predicted_arcs: torch.Tensor,
        gold_arcs: torch.Tensor,
        labels_correct: torch.Tensor,
        mask: Optional[torch.Tensor] = None,
    ) -> None:
        """
        # Parameters

        predicted_arcs, gold_arcs : `torch.Tensor`
            Boolean `(batch, dependents, heads)`, with ROOT at index 0; arcs from ROOT mark top nodes.
        labels_correct : `torch.Tensor`
            Boolean `(batch, dependents, heads)`: whether the predicted label of a pair is the gold one. Read where both
            have an arc; true for arcs from ROOT.
        mask : `torch.Tensor`, optional
            Boolean `(batch,)`: the instances to count (default: all).
        """
        predicted, gold, correct = (x.detach().flatten(1) for x in (predicted_arcs, gold_arcs, labels_correct))
        if mask is not None:
            predicted, gold, correct = predicted[mask], gold[mask], correct[mask]
        both = predicted & gold
        labeled = both & correct
        # shape: (batch,)
        num_predicted, num_gold, num_both, num_labeled = (x.sum(-1) for x in (predicted, gold, both, labeled))
        same_arcs = (num_both == num_gold) & (num_both == num_predicted)
        counts = torch.stack(
            [
                num_predicted.sum(),
                num_gold.sum(),
                num_both.sum(),
                num_labeled.sum(),
                torch.tensor(len(predicted), device=predicted.device),
                same_arcs.sum(),
                (same_arcs & (num_labeled == num_gold)).sum(),
            ]
        )
        self._counts = self._counts.to(counts.device) + counts

    def get_metric(self, reset: bool = False) -> Dict[str, float]:
        """
        # Returns

        `Dict[str, float]`
            `{labeled,unlabeled}_{precision,recall,f1,exact_match}`; 0 where nothing was counted.
        """
        counts = [dist_reduce_sum(count) for count in self._counts.tolist()]
        if reset:
            self.reset()
        metrics = {}
        for name, num_correct, num_exact in (
            ("labeled", counts[self._LABELED], counts[self._EXACT_LABELED]),
            ("unlabeled", counts[self._UNLABELED], counts[self._EXACT]),
        ):
            scores = precision_recall_f1(num_correct, counts[self._PREDICTED], counts[self._GOLD])
            metrics.update({f"{name}_{measure}": value for measure, value in scores.items()})
            metrics[f"{name}_exact_match"] = num_exact / max(counts[self._SENTENCES], 1)
        return metrics

    def reset(self) -> None:
        self._counts = torch.zeros(7, dtype=torch.long)
