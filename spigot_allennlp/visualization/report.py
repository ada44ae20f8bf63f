"""
What a model gets right and wrong on a file, as one HTML page.
"""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple, Optional

import torch

from spigot_allennlp.functional.trees import tree_depths
from spigot_allennlp.visualization.analysis import Analysis
from spigot_allennlp.visualization.comparison import compare, graph_arcs, has_gold_arcs, score
from spigot_allennlp.visualization.page import page, sentence_section, table

_NONE = "(no arc)"
_OTHER = "(other)"
_MOST_LABELS = 15
_LENGTHS = ((1, 10), (11, 20), (21, 30), (31, 40), (41, None))

Pairs = Counter[tuple[Optional[str], Optional[str]]]
"""How often a gold label met a predicted one; `None` where that side has no arc."""


class Pair(NamedTuple):
    predicted: Analysis
    gold: Analysis


def report(
    title: str, metrics: dict[str, Any], pairs: Sequence[Pair], num_worst: int, notes: Sequence[str] = ()
) -> str:
    """
    # Parameters

    title : `str`
        Title of the page.
    metrics : `Dict[str, Any]`
        Metrics of the model.
    pairs : `Sequence[Pair]`
        Predicted and gold annotation of each instance.
    num_worst : `int`
        Number of instances drawn, lowest score (`comparison.score`) first, and longer ones first among equals.

    notes : `Sequence[str]`, optional
        Lines at the top of the page.

    # Returns

    `str`
        A page of HTML that needs nothing from outside. It has the parts that the predictions have something for:
        metrics; the score by length; confusions of labels; statistics of the trees; and the worst instances, drawn.
    """
    content = [f'<p class="note">{escape(note)}</p>' for note in notes]
    content += ["<h2>Metrics</h2>", table(["metric", "value"], sorted((n.lstrip("_"), v) for n, v in metrics.items()))]

    scores = [score(*pair) for pair in pairs]
    scored = [number for number, pair in enumerate(pairs) if scores[number] is not None and pair.predicted.sentences]
    if scored:
        measure = scores[scored[0]].measure
        content += [f"<h2>By length</h2><p class='note'>The mean of the {measure} over the instances.</p>"]
        content.append(_by_length([(_length(pairs[number].predicted), scores[number].value) for number in scored]))
    for heading, note, counts in confusions(pairs):
        content += [f"<h2>{heading}</h2>", f'<p class="note">{note}</p>', confusion_table(counts)]
    statistics = tree_statistics(pairs)
    if statistics:
        content += ["<h2>Trees</h2>", table(*statistics)]

    worst = sorted(scored, key=lambda number: (scores[number].value, -_length(pairs[number].predicted)))[:num_worst]
    if worst:
        content.append("<h2>Worst</h2>")
        content += [sentence_section(number + 1, *pairs[number], scores[number]) for number in worst]
    return page(title, content, with_gold=any(has_gold_arcs(*pairs[number]) for number in worst))


def confusions(pairs: Sequence[Pair]) -> list[tuple[str, str, Pairs]]:
    """
    # Returns

    `List[Tuple[str, str, Pairs]]`
        A heading, what is counted, and the counts: of classes, of the labels of graphs, and of the relations of trees,
        each where something is known on both sides.
    """
    classes: Pairs = Counter()
    arcs: Pairs = Counter()
    relations: Pairs = Counter()
    for predicted, gold in pairs:
        if predicted.label is not None and gold.label is not None:
            classes[gold.label, predicted.label] += 1
        arcs.update((arc.gold, arc.predicted) for arc in compare(predicted, gold, graph_arcs) or ())
        for name, sentence in predicted.sentences.items():
            gold_sentence = gold.sentences.get(name)
            if gold_sentence is not None and sentence.deprels and gold_sentence.deprels:
                relations.update(zip(gold_sentence.deprels, sentence.deprels, strict=True))
    how = "Rows are gold, columns predicted"
    parts = (
        ("Confusion of classes", f"{how}.", classes),
        (
            "Confusion of the graph's labels",
            f"{how}; the last row are spurious arcs, the last column missed ones.",
            arcs,
        ),
        ("Confusion of the tree's relations", f"{how}; of every word, whether its head is right or not.", relations),
    )
    return [part for part in parts if part[-1]]


def confusion_table(counts: Pairs) -> str:
    """
    A table of gold (rows) against predicted labels, the most frequent first, with recall and precision. Rare labels
    share one row and column.
    """
    frequency: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    num_gold: Counter[str] = Counter()
    num_predicted: Counter[str] = Counter()
    for (gold, predicted), count in counts.items():
        for label, number in ((gold, num_gold), (predicted, num_predicted)):
            if label is not None:
                frequency[label] += count
                number[label] += count
        if gold == predicted:
            correct[gold] += count
    ranked = sorted(frequency, key=lambda label: (-frequency[label], label))
    shown = ranked if len(ranked) <= _MOST_LABELS + 1 else ranked[:_MOST_LABELS]
    column_of = {label: column for column, label in enumerate(shown)}
    names = [*shown, *([_OTHER] if len(shown) < len(ranked) else [])]
    if any(None in pair for pair in counts):
        column_of[None] = len(names)
        names.append(_NONE)
    cells = [[0] * len(names) for _ in names]
    for (gold, predicted), count in counts.items():
        cells[column_of.get(gold, len(shown))][column_of.get(predicted, len(shown))] += count

    rest = ranked[len(shown) :]

    def rates(number: Counter[str]) -> list[Any]:
        members = [[label] for label in shown] + ([rest] if rest else [])
        found = [(sum(correct[m] for m in group), sum(number[m] for m in group)) for group in members]
        return [f"{num_correct / total:.3f}" if total else "" for num_correct, total in found]

    recall, precision = rates(num_gold), rates(num_predicted)
    blank = [""] * (len(names) - len(recall))
    rows = [
        [name, *(count or "" for count in row), rate]
        for name, row, rate in zip(names, cells, [*recall, *blank], strict=True)
    ]
    rows.append(["precision", *precision, *blank, ""])
    # A row's cells are shaded by their share of it, less dark than their text.
    shades = [[0.6 * count / max(sum(row), 1) for count in row] + [0] for row in cells]
    shades.append([0] * (len(names) + 1))
    return table(["gold \\ predicted", *names, "recall"], rows, shades, upright=True)


def tree_statistics(pairs: Sequence[Pair]) -> Optional[tuple[list[str], list[list[Any]]]]:
    """
    What shape the trees have (Williams et al. 2018 compare latent trees to right- and left-branching ones): the mean
    depth, the mean length of arcs, and how many words have the previous word, the next one or ROOT as their head.

    # Returns

    `Optional[Tuple[List[str], List[List[Any]]]]`
        A header and rows, with a column for gold trees where there are some; `None` without predicted trees.
    """
    predicted = [sentence.heads for pair in pairs for sentence in pair.predicted.sentences.values()]
    gold = [sentence.heads for pair in pairs for sentence in pair.gold.sentences.values()]
    columns = {}
    for name, trees in (("predicted", predicted), ("gold", gold)):
        trees = [heads for heads in trees if heads is not None]
        if trees:
            columns[name] = _shape(trees)
    if "predicted" not in columns:
        return None
    rows = [[name, *(column[name] for column in columns.values())] for name in columns["predicted"]]
    return ["", *columns], rows


def _shape(trees: Sequence[Sequence[int]]) -> dict[str, Any]:
    # A word on a cycle has no depth, as in `TreeScores`.
    depths = [tree_depths(torch.tensor([-1, *heads])) for heads in trees]
    arcs = [(word, head) for heads in trees for word, head in enumerate(heads, 1)]
    lengths = [abs(word - head) for word, head in arcs if head > 0]
    return {
        "sentences": len(trees),
        "mean depth": _mean([int(depth.max()) for depth in depths if depth.min() >= 0]),
        "mean length of arcs": _mean(lengths),
        "head is the previous word": _mean([head == word - 1 and head > 0 for word, head in arcs]),
        "head is the next word": _mean([head == word + 1 for word, head in arcs]),
        "head is ROOT": _mean([head == 0 for _, head in arcs]),
    }


def _by_length(values: Sequence[tuple[int, float]]) -> str:
    rows = []
    for shortest, longest in _LENGTHS:
        inside = [value for length, value in values if length >= shortest and (longest is None or length <= longest)]
        if inside:
            rows.append([f"{shortest}–{longest}" if longest else f"{shortest} or more", len(inside), _mean(inside)])
    return table(["words", "instances", "score"], rows)


def _length(analysis: Analysis) -> int:
    return sum(map(len, analysis.sentences.values()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
