"""What a report counts."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.data import Sentence
from spigot_allennlp.visualization import Analysis, Pair, report, score
from spigot_allennlp.visualization.comparison import compare, graph_arcs, labeled_f1
from spigot_allennlp.visualization.report import confusion_table, confusions, tree_statistics
from tests.visualization.sentences import cooks, sentences


def of(sentence: Sentence, **keys) -> Analysis:
    return Analysis({"": sentence}, **keys)


def cells(table: str) -> list:
    """The texts of a table's rows."""
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]


class TestScore:
    @settings(max_examples=40)
    @given(sentences(words=st.just("word")))
    def test_f1_of_a_graph(self, pair):
        predicted, gold = map(graph_arcs, pair)
        right = len(predicted.items() & gold.items())
        total = len(predicted) + len(gold)
        found = score(*map(of, pair))
        assert found.value == pytest.approx(2 * right / total if total else 1.0)
        assert found.measure == "labelled F1"

    def test_what_a_model_is_for(self):
        tree = {"arcs": None, "tops": None}
        predicted = of(cooks(**tree), label="1", probabilities={"0": 0.3, "1": 0.7})
        assert score(predicted, of(cooks(**tree), label="0")) == (0.3, "probability of the right class")
        assert score(of(cooks(**tree), label="1"), of(cooks(), label="1")) == (1.0, "probability of the right class")
        assert score(of(cooks(**tree)), of(cooks(heads=[2, 0, 2, 2]))) == (0.75, "attachment score")
        # Latent trees without gold ones, and a graph where gold has none.
        assert score(of(cooks()), of(cooks(heads=None, deprels=None, **tree))) is None

    def test_pairs_of_sentences(self):
        both = {"premise_": cooks(), "hypothesis_": cooks(arcs={}, tops={2: "root"})}
        gold = {"premise_": cooks(), "hypothesis_": cooks()}
        # 4 + 1 predicted, 4 + 4 gold, 4 + 1 right.
        assert labeled_f1(compare(Analysis(both), Analysis(gold), graph_arcs)) == pytest.approx(10 / 13)


class TestConfusions:
    def test_of_graphs_trees_and_classes(self):
        predicted = cooks(arcs={(1, 2): "ARG2", (3, 4): "ARG1"}, deprels=["obj", "root", "mark", "xcomp"])
        found = confusions([Pair(of(predicted, label="1"), of(cooks(), label="0"))])
        counts = {heading: counts for heading, _, counts in found}
        assert counts == {
            "Confusion of classes": Counter({("0", "1"): 1}),
            "Confusion of the graph's labels": Counter(
                {
                    ("ARG1", "ARG2"): 1,
                    (None, "ARG1"): 1,
                    ("ARG1", None): 1,
                    ("ARG2", None): 1,
                    ("top", "top"): 1,
                }
            ),
            "Confusion of the tree's relations": Counter(
                {("nsubj", "obj"): 1, ("root", "root"): 1, ("mark", "mark"): 1, ("xcomp", "xcomp"): 1}
            ),
        }

    def test_nothing_known(self):
        assert confusions([Pair(of(cooks()), Analysis())]) == []

    def test_table(self):
        rows = cells(confusion_table(Counter({("a", "a"): 6, ("a", "b<"): 2, ("b<", None): 1, (None, "b<"): 3})))
        assert rows == [
            ["gold \\ predicted", "a", "b&lt;", "(no arc)", "recall"],
            ["a", "6", "2", "", "0.750"],
            ["b&lt;", "", "", "1", "0.000"],
            ["(no arc)", "", "3", "", ""],
            ["precision", "1.000", "0.000", "", ""],
        ]

    @pytest.mark.parametrize("num_labels", [16, 17, 40])
    def test_rare_labels_share_a_row(self, num_labels):
        counts = Counter({(f"l{label:02}", f"l{label:02}"): 100 - label for label in range(num_labels)})
        counts["l38", "l39"] = 5
        header, *rows = cells(confusion_table(counts))
        assert len(rows) == len(header) - 1 <= 17
        assert ("(other)" in header) == (num_labels > 15)
        assert sum(int(cell) for row in rows[:-1] for cell in row[1:-1] if cell) == sum(counts.values())
        if num_labels == 40:
            rest = range(15, 40)
            right = sum(100 - label for label in rest)
            assert rows[-2][-1] == f"{right / (right + 5):.3f}"


class TestTreeStatistics:
    def test_shape(self):
        header, rows = tree_statistics(
            [Pair(of(cooks()), of(cooks(heads=[2, 3, 4, 0]))), Pair(of(cooks()), Analysis())]
        )
        assert header == ["", "predicted", "gold"]
        assert {name: values for name, *values in rows} == {
            "sentences": [2, 1],
            "mean depth": [3.0, 4.0],
            "mean length of arcs": [pytest.approx(4 / 3), 1.0],
            "head is the previous word": [0.0, 0.0],
            "head is the next word": [0.5, 0.75],
            "head is ROOT": [0.25, 0.25],
        }

    def test_a_cycle_has_no_depth(self):
        _, rows = tree_statistics([Pair(of(cooks(heads=[2, 1, 4, 3])), Analysis()), Pair(of(cooks()), Analysis())])
        assert rows[1] == ["mean depth", 3.0]

    def test_no_trees(self):
        assert tree_statistics([Pair(of(cooks(heads=None, deprels=None)), of(cooks()))]) is None


class TestPage:
    def test_the_worst_are_drawn_first(self):
        wrong = cooks(arcs={(2, 1): "ARG1"}, tops={1: "root"})
        half = cooks(arcs={(1, 2): "ARG1", (1, 4): "ARG2"})
        pairs = [Pair(of(sentence), of(cooks())) for sentence in (cooks(), half, wrong)]
        html = report("A <model>", {"labeled_f1": 0.5, "_exact": 1}, pairs, 2)
        assert re.findall('id="sentence-([0-9]+)"', html) == ["3", "2"]
        assert "A &lt;model&gt;" in html and "labeled_f1" in html and ">exact<" in html
        assert 'id="sentence' not in report("", {}, pairs, 0)

    def test_without_sentences(self):
        """As of a model of clusters."""
        pairs = [Pair(Analysis(label="1", probabilities={"1": 1.0}), Analysis(label="0"))]
        html = report("", {"accuracy": 0.0}, pairs, 5)
        assert "Confusion of classes" in html and "<svg" not in html
        # Instances without words have no length.
        assert "By length" not in html

    def test_without_gold(self):
        html = report("", {}, [Pair(of(cooks()), Analysis())], 5)
        assert "Trees" in html and "Worst" not in html
