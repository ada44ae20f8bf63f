"""
Predicted beside gold arcs.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Optional

from spigot_allennlp.data import Sentence
from spigot_allennlp.visualization.analysis import Analysis

Arcs = dict[tuple[int, int], str]
"""Labels by `(dependent, head)`. Words count from 1; 0 is ROOT, whose arcs mark roots and top nodes."""

TOP = "top"
"""The label of the arcs from ROOT in a graph: there is none to get wrong (Oepen et al. 2014, section 4)."""

Status = Literal["predicted", "correct", "mislabelled", "missed", "spurious"]


class ComparedArc(NamedTuple):
    """
    # Parameters

    dependent, head : `int`
        Positions of the two words; 0 is ROOT.
    status : `str`
        `"correct"`, `"mislabelled"`, `"missed"` (gold only) or `"spurious"` (predicted only); without gold arcs,
        `"predicted"`.
    predicted, gold : `str`, optional
        The labels; `None` where there is no such arc.
    """

    dependent: int
    head: int
    status: Status
    predicted: Optional[str]
    gold: Optional[str]


def tree_arcs(sentence: Optional[Sentence]) -> Optional[Arcs]:
    """The arcs of a sentence's tree, with empty labels where it has none; `None` where there is no tree."""
    if sentence is None or sentence.heads is None:
        return None
    labels = sentence.deprels or [""] * len(sentence)
    return {
        (dependent, head): label
        for dependent, (head, label) in enumerate(zip(sentence.heads, labels, strict=True), 1)
        if head >= 0
    }


def graph_arcs(sentence: Optional[Sentence]) -> Optional[Arcs]:
    """The arcs of a sentence's graph, from ROOT to its top nodes among them; `None` where there is no graph."""
    if sentence is None or sentence.arcs is None:
        return None
    return {**sentence.arcs, **{(top, 0): TOP for top in sentence.tops}}


def compare_arcs(predicted: Arcs, gold: Optional[Arcs]) -> list[ComparedArc]:
    """
    All arcs of either, in the order of their words.

    An arc without a label on one side, because that has none at all, is not mislabeled.
    """
    compared = []
    for arc in sorted({**predicted, **(gold or {})}):
        label, gold_label = predicted.get(arc), None if gold is None else gold.get(arc)
        status: Status
        if gold is None:
            status = "predicted"
        elif gold_label is None:
            status = "spurious"
        elif label is None:
            status = "missed"
        else:
            status = "mislabelled" if label and gold_label and label != gold_label else "correct"
        compared.append(ComparedArc(*arc, status, label, gold_label))
    return compared


def labeled_f1(compared: Iterable[ComparedArc]) -> float:
    """
    Score of the arcs of one sentence (for a tree, where every word has a head on either side: the labeled attachment
    score); 1 where there are none.
    """
    counts = Counter(arc.status for arc in compared)
    total = 2 * (counts["correct"] + counts["mislabelled"]) + counts["missed"] + counts["spurious"]
    return 2 * counts["correct"] / total if total else 1.0


class Score(NamedTuple):
    """How good a prediction is, from 0 to 1, and by which measure."""

    value: float
    measure: str


def compare(
    predicted: Analysis, gold: Analysis, arcs: Callable[[Optional[Sentence]], Optional[Arcs]]
) -> Optional[list[ComparedArc]]:
    """
    The arcs (`tree_arcs` or `graph_arcs`) of all sentences where both sides have some; `None` where there is no such
    sentence.
    """
    compared = None
    for name, sentence in predicted.sentences.items():
        found, expected = arcs(sentence), arcs(gold.sentences.get(name))
        if found is not None and expected is not None:
            compared = [*(compared or ()), *compare_arcs(found, expected)]
    return compared


def has_gold_arcs(predicted: Analysis, gold: Analysis) -> bool:
    """Whether a drawing of the two has anything to compare."""
    return any(compare(predicted, gold, arcs) is not None for arcs in (tree_arcs, graph_arcs))


def score(predicted: Analysis, gold: Analysis) -> Optional[Score]:
    """
    Score of what a model is for: the F1 of a graph's labeled arcs, else the probability of the right class, else the
    attachment score of a tree; `None` where gold has nothing of what is predicted.
    """
    graph = compare(predicted, gold, graph_arcs)
    if graph is not None:
        return Score(labeled_f1(graph), "labelled F1")
    if predicted.label is not None and gold.label is not None:
        certain = float(predicted.label == gold.label)
        return Score(predicted.probabilities.get(gold.label, certain), "probability of the right class")
    tree = compare(predicted, gold, tree_arcs)
    return None if tree is None else Score(labeled_f1(tree), "attachment score")
