"""What is in a drawing, read back from its SVG."""

import itertools
import re
from collections import Counter
from typing import Dict, List, NamedTuple
from xml.etree import ElementTree

import pytest
from allennlp.common.checks import ConfigurationError
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.data import Sentence
from spigot_allennlp.visualization import draw_sentence, graph_arcs, tree_arcs
from tests.visualization.sentences import cooks, sentences

SVG = "{http://www.w3.org/2000/svg}"


class Half(NamedTuple):
    """The part of the tree or the graph: arcs by status, labels with their places, and where arcs and heads end."""

    statuses: Counter
    labels: List[str]
    places: List[tuple]
    spans: List[tuple]
    arrowheads: List[float]


def numbers(path: ElementTree.Element) -> List[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path.get("d"))]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def shift(group: ElementTree.Element) -> float:
    return float(re.search(r"translate\(0 (\S+)\)", group.get("transform"))[1])


def half(root: ElementTree.Element, name: str) -> Half:
    group = root.find(f"{SVG}g[@class='{name}']")
    labels = group.findall(f"{SVG}text")
    arrows = group.findall(f"{SVG}g/{SVG}g")
    assert [arrow.get("class").split()[1] for arrow in arrows] == [label.get("class").split()[1] for label in labels]
    paths = [[numbers(path) for path in arrow.findall(f"{SVG}path")] for arrow in arrows]
    return Half(
        Counter(label.get("class").split()[1] for label in labels),
        ["".join(label.itertext()) for label in labels],
        [(float(label.get("x")), float(label.get("y")) + shift(group)) for label in labels],
        [(arc[0], arc[-2]) for arc, _ in paths],
        [head[0] for _, head in paths],
    )


def word_places(root: ElementTree.Element) -> List[float]:
    return [float(word.get("x")) for word in root.iter(f"{SVG}tspan") if word.get("class") == "displacy-word"]


def statuses(predicted: Dict, gold: Dict) -> Counter:
    both = predicted.keys() & gold.keys()
    correct = sum(predicted[arc] == gold[arc] for arc in both)
    counts = {
        "correct": correct,
        "mislabelled": len(both) - correct,
        "spurious": len(predicted) - len(both),
        "missed": len(gold) - len(both),
    }
    return Counter({name: count for name, count in counts.items() if count})


@settings(max_examples=30)
@given(sentences(words=st.just("word")))
def test_every_arc_of_either_is_drawn_once(pair):
    predicted, gold = pair
    root = parsed(draw_sentence(predicted, gold))
    for name, arcs in (("tree", tree_arcs), ("graph", graph_arcs)):
        drawn = half(root, name)
        assert drawn.statuses == statuses(arcs(predicted), arcs(gold))
        # No arc lies on another one.
        assert len(set(drawn.places)) == len(drawn.places)
    alone = parsed(draw_sentence(predicted))
    for name, arcs in (("tree", tree_arcs), ("graph", graph_arcs)):
        drawn = half(alone, name)
        assert drawn.statuses == Counter(predicted=len(arcs(predicted)))
        assert Counter(drawn.labels) == Counter(arcs(predicted).values())


@settings(max_examples=30)
@given(sentences())
def test_words_are_text_whatever_they_are(pair):
    predicted, _ = pair
    root = parsed(draw_sentence(predicted))
    shown = ["".join(word.itertext()) for word in root.iter(f"{SVG}tspan") if word.get("class") == "displacy-word"]
    for word, text in zip(predicted.words, shown, strict=True):
        # XML has no place for control characters.
        assert len(text) == min(len(word), 20)
        if word.isprintable() and len(word) <= 20:
            assert text == word
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "style", "title", "g", "path", "text", "tspan")
    }


def test_the_tree_is_above_the_words_and_the_graph_below():
    root = parsed(draw_sentence(cooks()))
    tree, graph = half(root, "tree"), half(root, "graph")
    (words,) = {float(word.get("y")) for word in root.findall(f"{SVG}g[@class='words']/{SVG}text")}
    assert max(y for _, y in tree.places) < words < min(y for _, y in graph.places)
    assert min(y for _, y in tree.places) > 0
    assert max(y for _, y in graph.places) < float(root.get("height"))


def test_what_is_not_predicted_is_not_drawn():
    root = parsed(draw_sentence(cooks(arcs=None, tops=None), cooks()))
    assert half(root, "tree").statuses == Counter(correct=4)
    assert not half(root, "graph").statuses
    assert not half(parsed(draw_sentence(cooks(heads=None, deprels=None), cooks())), "tree").statuses


def test_heads_point_at_dependents():
    root = parsed(draw_sentence(cooks()))
    places = word_places(root)
    for name, arcs in (("tree", tree_arcs), ("graph", graph_arcs)):
        drawn = half(root, name)
        order = sorted(arcs(cooks()), key=lambda arc: (arc[1] == 0, arc))
        for (dependent, head), x, span in zip(order, drawn.arrowheads, drawn.spans, strict=True):
            assert abs(x - places[dependent - 1]) < 20
            ends = {min(range(4), key=lambda word: abs(places[word] - end)) + 1 for end in span}
            assert ends == {dependent, head} - {0}


def test_a_wrong_label_is_shown_beside_the_right_one():
    root = parsed(draw_sentence(cooks(arcs={(1, 2): "ARG2"}), cooks()))
    drawn = half(root, "graph")
    assert drawn.statuses == Counter(mislabelled=1, missed=2, correct=1)
    assert "ARG2 ≠ ARG1" in drawn.labels
    assert {part.get("class"): part.text for part in root.iter(f"{SVG}tspan") if "label" in part.get("class")} == {
        "predicted-label": "ARG2",
        "gold-label": "ARG1",
    }


def test_trees_without_relations():
    drawn = half(parsed(draw_sentence(cooks(deprels=None), cooks(heads=[2, 0, 2, 2]))), "tree")
    assert drawn.statuses == Counter(correct=3, spurious=1, missed=1)
    assert "≠" not in "".join(drawn.labels)


def test_a_word_without_a_head():
    assert half(parsed(draw_sentence(cooks(heads=[2, 0, -1, 2]))), "tree").statuses == Counter(predicted=3)


def test_arcs_of_long_sentences_end_at_their_words():
    """displaCy itself moves the ends of deeply nested arcs past the neighbouring words."""
    length = 40
    nested = {(length - offset, 1 + offset): "x" for offset in range(length // 2)}
    sentence = Sentence(words=["word"] * length, arcs=nested, tops={})
    root = parsed(draw_sentence(sentence))
    places, drawn = word_places(root), half(root, "graph")
    for (dependent, head), span in zip(sorted(nested), drawn.spans, strict=True):
        for word, end in zip(sorted((dependent, head)), span):
            assert abs(places[word - 1] - end) < (places[1] - places[0]) / 2
    heights = [y for _, y in drawn.places]
    assert all(abs(a - b) >= 20 for a, b in itertools.combinations(heights, 2))


def test_a_long_word_is_cut_and_stands_whole_in_its_title():
    word = "http://" + "x" * 100
    root = parsed(draw_sentence(Sentence(words=[word, "y"], heads=[0, 1])))
    text = root.find(f"{SVG}g[@class='words']/{SVG}text")
    assert text.find(f"{SVG}title").text == word
    assert float(root.get("width")) < 600


def test_gold_has_the_same_words():
    with pytest.raises(ConfigurationError, match="gold has other words: 'Bill promised to cook', not 'Anna promised"):
        draw_sentence(cooks(), cooks(words=["Bill", "promised", "to", "cook"]))
