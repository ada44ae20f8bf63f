"""
Sentences with their trees and graphs as SVG, drawn by spaCy's displaCy.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional
from xml.etree import ElementTree

from allennlp.common.checks import ConfigurationError
from spacy.displacy import DependencyRenderer

from spigot_allennlp.data import Sentence
from spigot_allennlp.visualization.comparison import ComparedArc, Status, compare_arcs, graph_arcs, tree_arcs


class Pen(NamedTuple):
    """How the arcs of a status are drawn, and what that means."""

    color: str
    width: float
    dashes: str
    meaning: str


# Colors that the color-blind tell apart (Okabe and Ito 2008); width and dashes say the same once more.
PENS: dict[Status, Pen] = {
    "predicted": Pen("#333333", 1.5, "none", "predicted"),
    "correct": Pen("#333333", 1.5, "none", "correct"),
    "mislabelled": Pen("#9e3a78", 2, "2 3", "wrong label (predicted ≠ gold)"),
    "spurious": Pen("#d55e00", 3, "none", "spurious (predicted, not gold)"),
    "missed": Pen("#0072b2", 2, "7 4", "missed (gold, not predicted)"),
}

# Labels stand upright on their arcs, which a halo keeps off them: displaCy's own follow the curve, and vanish where
# they are longer than it.
_STYLE = """
.dependency-drawing { font-family: Arial, Helvetica, sans-serif; background: #ffffff }
.dependency-drawing text { text-anchor: middle; font-size: 16px }
.dependency-drawing path { fill: currentColor }
.dependency-drawing .displacy-arc { fill: none; stroke: currentColor }
.dependency-drawing .displacy-label { font-size: 12px; fill: currentColor; stroke: #ffffff; stroke-width: 4px;
    stroke-linejoin: round; paint-order: stroke }
""" + "".join(
    f".dependency-drawing .{status} {{ color: {pen.color} }}\n"
    f".{status} .displacy-arc {{ stroke-width: {pen.width}px; stroke-dasharray: {pen.dashes} }}\n"
    for status, pen in PENS.items()
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# What no XML file may contain.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_WORD = 20
_CHARACTER_WIDTH = 9
_LEVEL_HEIGHT = 24
_STUB = 34
_MARGIN = 14
_WORD_HEIGHT = 34


class _Half(DependencyRenderer):
    """
    displaCy's arcs above the words, made fit for long sentences.

    # Parameters

    arcs : `List[ComparedArc]`
        Arcs to draw.
    distance : `int`
        Distance between words.
    """

    def __init__(self, arcs: Sequence[ComparedArc], distance: int) -> None:
        # displaCy has no arcs from ROOT; `label` is the arc's number here, for no two arcs to be taken for the same.
        self.between_words = [arc for arc in arcs if arc.head > 0]
        self.from_root = [arc for arc in arcs if arc.head == 0]
        self.as_displacy = [
            {
                "start": min(arc.dependent, arc.head) - 1,
                "end": max(arc.dependent, arc.head) - 1,
                "label": str(number),
                "dir": "left" if arc.dependent < arc.head else "right",
            }
            for number, arc in enumerate(self.between_words)
        ]
        deepest = max(self.get_levels(self.as_displacy).values(), default=1)
        super().__init__(
            {
                "distance": distance,
                "offset_x": distance // 2 + _MARGIN,
                "arrow_width": 7,
                # displaCy moves an arc's end by a quarter of this for every level above it: past the neighboring word,
                # where they are many. In fours, so that everything has an integer for its place.
                "arrow_spacing": 4 * min(3, max(1, distance // (4 * deepest))),
            }
        )

    def get_levels(self, arcs: list[dict[str, Any]]) -> dict[tuple[int, int, str], int]:
        """Like displaCy's, but the same in every run: its own depend on the order of a set of strings."""
        levels = {}
        taken = [0] * max((arc["end"] for arc in arcs), default=0)
        for arc in sorted(arcs, key=lambda arc: (arc["end"] - arc["start"], arc["start"], int(arc["label"]))):
            span = slice(arc["start"], arc["end"])
            level = max(taken[span]) + 1
            taken[span] = [level] * (arc["end"] - arc["start"])
            levels[arc["start"], arc["end"], arc["label"]] = level
        return levels

    def get_arc(self, x_start: int, y: int, y_curve: int, x_end: int) -> str:
        """
        A level is as high as its labels need; displaCy's grow with the distance between words. The top of the curve
        is at three quarters of the height of its control points.
        """
        level = round((y - y_curve) / (self.distance / 2))
        return super().get_arc(x_start, y, y - (level * _LEVEL_HEIGHT + 9) * 4 // 3, x_end)


def draw_sentence(predicted: Sentence, gold: Optional[Sentence] = None) -> str:
    """
    The tree above the words, the graph below them, each as far as it is predicted; with gold ones, in one picture,
    where the class of an arc (`displacy-arrow correct`, `mislabelled`, `spurious` or `missed`) shows its status.

    # Parameters

    predicted : `Sentence`
        Predicted annotation.
    gold : `Sentence`, optional (default = `None`)
        Gold annotation of the same words.

    # Returns

    `str`
        An SVG document, the same for the same sentence. It needs nothing from outside, and contains no scripts.

    # Errors

    `ConfigurationError` where gold has other words.
    """
    if gold is not None and gold.words != predicted.words:
        raise ConfigurationError(f"gold has other words: {' '.join(gold.words)!r}, not {' '.join(predicted.words)!r}")
    tree, graph = tree_arcs(predicted), graph_arcs(predicted)
    compared_tree = [] if tree is None else compare_arcs(tree, tree_arcs(gold))
    compared_graph = [] if graph is None else compare_arcs(graph, graph_arcs(gold))
    words = [_shown(word) for word in predicted.words]
    distance = _distance(words, [*compared_tree, *compared_graph])

    halves = _Half(compared_tree, distance), _Half(compared_graph, distance)
    drawn = [_draw_arcs(half, words, name) for half, name in zip(halves, ("tree", "graph"))]
    heights = [height for _, _, height in drawn]
    width = round(halves[0].offset_x * 2 + (len(words) - 1) * distance)
    height = round(sum(heights) + _WORD_HEIGHT + 2 * _MARGIN)

    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "dependency-drawing",
            "width": str(width),
            "height": str(height),
            "viewBox": f"0 0 {width} {height}",
            "role": "img",
        },
    )
    ElementTree.SubElement(svg, "style").text = _STYLE
    ElementTree.SubElement(svg, "title").text = _legal(" ".join(predicted.words))
    (tree_group, word_elements, _), (graph_group, _, _) = drawn
    baseline = _MARGIN + heights[0]
    tree_group.set("transform", f"translate(0 {_format(baseline)})")
    graph_group.set("transform", f"translate(0 {_format(baseline + _WORD_HEIGHT)})")
    svg.append(tree_group)
    words_group = ElementTree.SubElement(svg, "g", {"class": "words"})
    for element, word, shown in zip(word_elements, predicted.words, words, strict=True):
        element.set("y", _format(baseline + 22))
        words_group.append(element)
        if shown != word:
            ElementTree.SubElement(element, "title").text = _legal(word)
    svg.append(graph_group)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _draw_arcs(
    half: _Half, words: Sequence[str], name: str
) -> tuple[ElementTree.Element, list[ElementTree.Element], float]:
    """
    # Returns

    `Tuple[Element, List[Element], float]`
        A group of arcs that end at `y = 0` (a graph's arcs mirrored, from below), displaCy's words, and the arcs'
        height.
    """
    rendered = half.render_svg("", [{"text": word, "tag": ""} for word in words], half.as_displacy)
    # Names without a namespace.
    document = ElementTree.fromstring(rendered.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    word_elements = document.findall("text")
    for element in word_elements:
        element.remove(element.find("tspan[@class='displacy-tag']"))

    floor = half.offset_y
    drawn = []
    for arc, element in zip(half.between_words, document.findall("g"), strict=True):
        path, arrowhead = (path.get("d") for path in element.findall("path"))
        x_start, _, _, y_control, x_end, *_ = map(float, _NUMBER.findall(path))
        drawn.append((arc, path, arrowhead, (x_start + x_end) / 2, 0.75 * (floor - y_control)))
    for arc in half.from_root:
        x = half.offset_x + (arc.dependent - 1) * half.distance + half.arrow_spacing / 2
        path = f"M{x},{floor - _STUB} L{x},{floor - 3}"
        drawn.append((arc, path, half.get_arrowhead("right", x, floor, x), x, _STUB))

    sign = -1 if name == "graph" else 1
    group = ElementTree.Element("g", {"class": name})
    flipped = ElementTree.SubElement(group, "g", {"transform": f"scale(1 {sign}) translate(0 {_format(-floor)})"})
    for arc, *paths, x, height in drawn:
        arrow = ElementTree.SubElement(flipped, "g", {"class": f"displacy-arrow {arc.status}"})
        for part, path in zip(("displacy-arc", "displacy-arrowhead"), paths):
            ElementTree.SubElement(arrow, "path", {"class": part, "d": path})
        # Behind all arcs, so that none crosses it out.
        place = {"class": f"displacy-label {arc.status}", "x": _format(x), "y": _format(4 - sign * height)}
        _write_label(ElementTree.SubElement(group, "text", place), arc)
    return group, word_elements, max((height + _MARGIN for *_, height in drawn), default=0.0)


def _write_label(text: ElementTree.Element, arc: ComparedArc) -> None:
    if arc.status == "mislabelled":
        for name, label in (("predicted-label", arc.predicted), ("not-equal", " ≠ "), ("gold-label", arc.gold)):
            ElementTree.SubElement(text, "tspan", {"class": name}).text = _legal(label)
    else:
        text.text = _legal(arc.gold if arc.predicted is None else arc.predicted)


def _distance(words: Sequence[str], arcs: Sequence[ComparedArc]) -> int:
    """Between words, for the longest of them, and the labels of arcs between neighbors, to have room."""
    widths = [len(word) * _CHARACTER_WIDTH for word in words]
    for arc in arcs:
        if abs(arc.dependent - arc.head) == 1 and arc.head > 0:
            label = " ≠ ".join(filter(None, {arc.predicted, arc.gold}))
            widths.append(len(label) * 7)
    return min(max(90, max(widths) + 20), _LONGEST_WORD * _CHARACTER_WIDTH + 20)


def _shown(word: str) -> str:
    word = _legal(word)
    return word if len(word) <= _LONGEST_WORD else word[: _LONGEST_WORD - 1] + "…"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)


def _format(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
