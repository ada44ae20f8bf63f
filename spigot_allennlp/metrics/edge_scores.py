from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Dict, Tuple

from allennlp.nn.util import dist_reduce_sum
from allennlp.training.metrics import Metric

from spigot_allennlp.data.sentence import coarse_label
from spigot_allennlp.metrics.reduced_once import ReducedOnce

Edge = Tuple[Hashable, Hashable, str]
"""`(dependent, head, label)`. Words may be numbered in any way that is the same on both sides."""


def precision_recall_f1(num_correct: int, num_predicted: int, num_gold: int) -> Dict[str, float]:
    """
    # Returns

    `Dict[str, float]`
        `precision`, `recall` and `f1`; 0 where nothing was counted.
    """
    return {
        "precision": num_correct / max(num_predicted, 1),
        "recall": num_correct / max(num_gold, 1),
        "f1": 2 * num_correct / max(num_predicted + num_gold, 1),
    }


@Metric.register("enhanced_dependencies")
class EnhancedDependencyScores(ReducedOnce):
    """
    ELAS and EULAS, the measures of the IWPT 2020 and 2021 shared tasks on enhanced Universal Dependencies (Bouma et al.
    2020, section 5): the F1 of the edges of enhanced graphs, edges from ROOT and parallel edges included. In ELAS an
    edge is right with its label; in EULAS with its universal label, where subtypes and case information (after the
    first `:`) are cut.

    As in the official script, what is counted are *pairs* of a predicted and a gold edge between the same words with
    the same label. Where parallel edges differ in their subtypes only, as in `2:nsubj:pass|2:nsubj:xsubj`, each matches
    each in EULAS, which may then be above 1.

    Everything is summed over the corpus and over the workers of a distributed run.
    """

    def __init__(self) -> None:
        self.reset()

    def __call__(self, predicted: Iterable[Edge], gold: Iterable[Edge]) -> None:
        """
        # Parameters

        predicted, gold : `Iterable[Edge]`
            The edges of a sentence, or of a corpus whose words have numbers of their own: `(dependent, head, label)`.
        """
        predicted, gold = list(predicted), list(gold)
        self._num_predicted += len(predicted)
        self._num_gold += len(gold)
        self._num_labeled += _num_pairs(predicted, gold)
        self._num_universal += _num_pairs(
            *([(*edge[:2], coarse_label(edge[2])) for edge in x] for x in (predicted, gold))
        )

    def get_metric(self, reset: bool = False) -> Dict[str, float]:
        """
        # Returns

        `Dict[str, float]`
            `elas` and `eulas`, and `{elas,eulas}_{precision,recall}`; 0 where nothing was counted.
        """
        num_predicted, num_gold, num_labeled, num_universal = (
            dist_reduce_sum(count)
            for count in (self._num_predicted, self._num_gold, self._num_labeled, self._num_universal)
        )
        if reset:
            self.reset()
        metrics = {}
        for name, num_correct in (("elas", num_labeled), ("eulas", num_universal)):
            scores = precision_recall_f1(num_correct, num_predicted, num_gold)
            metrics[name] = scores.pop("f1")
            metrics.update({f"{name}_{measure}": value for measure, value in scores.items()})
        return metrics

    def reset(self) -> None:
        self._num_predicted = self._num_gold = self._num_labeled = self._num_universal = 0


def _num_pairs(predicted: Iterable[Edge], gold: Iterable[Edge]) -> int:
    """How many pairs of equal edges there are."""
    num_gold = Counter(gold)
    return sum(count * num_gold[edge] for edge, count in Counter(predicted).items())
