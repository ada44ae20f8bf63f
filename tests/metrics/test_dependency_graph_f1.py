"""The scores of graphs, against numbers worked out by hand and against a slow count over sets of arcs."""

from typing import Dict, List, Set, Tuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spigot_allennlp.metrics import DependencyGraphF1

# (dependent, head) -> label, with head 0 for top nodes.
Graph = Dict[Tuple[int, int], str]


def tensors(pairs: List[Tuple[Graph, Graph]], num_tokens: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predicted and gold arcs, and where their labels agree, of (predicted, gold) graphs."""
    shape = (len(pairs), num_tokens, num_tokens)
    predicted, gold, correct = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for sentence, (predicted_graph, gold_graph) in enumerate(pairs):
        for arc in predicted_graph:
            predicted[(sentence, *arc)] = True
        for arc, label in gold_graph.items():
            gold[(sentence, *arc)] = True
            correct[(sentence, *arc)] = predicted_graph.get(arc) == label
    return predicted, gold, correct


FIRST = (
    # Of 4 gold arcs, the top node among them, 3 are found, 2 with their label; 1 found arc is wrong.
    {(2, 0): "root", (1, 2): "ARG1", (3, 2): "ARG1", (1, 3): "ARG2"},
    {(2, 0): "root", (1, 2): "ARG1", (3, 2): "ARG2", (4, 3): "ARG1"},
)
# Right but for a label.
SECOND = ({(1, 0): "root", (2, 1): "ARG2"}, {(1, 0): "root", (2, 1): "ARG1"})
# Right, with two top nodes.
THIRD = ({(1, 0): "root", (2, 0): "root"}, {(1, 0): "root", (2, 0): "root"})


def test_by_hand():
    metric = DependencyGraphF1()
    metric(*tensors([FIRST, SECOND], num_tokens=5))
    metric(*tensors([THIRD], num_tokens=5))
    assert metric.get_metric(reset=True) == pytest.approx(
        {
            # 8 predicted, 8 gold, 7 in both, 5 with the same label.
            "labeled_precision": 5 / 8,
            "labeled_recall": 5 / 8,
            "labeled_f1": 5 / 8,
            "labeled_exact_match": 1 / 3,
            "unlabeled_precision": 7 / 8,
            "unlabeled_recall": 7 / 8,
            "unlabeled_f1": 7 / 8,
            "unlabeled_exact_match": 2 / 3,
        }
    )
    assert set(metric.get_metric().values()) == {0.0}


def test_precision_and_recall_are_not_mixed_up():
    metric = DependencyGraphF1()
    metric(*tensors([({(1, 0): "root"}, {(1, 0): "root", (2, 1): "a", (3, 1): "a", (3, 2): "a"})], num_tokens=4))
    scores = metric.get_metric()
    assert (scores["labeled_precision"], scores["labeled_recall"]) == (1.0, 0.25)
    assert scores["labeled_f1"] == pytest.approx(2 * 0.25 / 1.25)
    assert scores["unlabeled_exact_match"] == 0.0


def test_a_missed_and_a_spurious_top_node_are_errors():
    metric = DependencyGraphF1()
    metric(*tensors([({(1, 0): "root", (2, 1): "a"}, {(2, 0): "root", (2, 1): "a"})], num_tokens=3))
    scores = metric.get_metric()
    assert scores["labeled_f1"] == scores["unlabeled_f1"] == 0.5
    assert scores["labeled_exact_match"] == 0.0


def test_empty_graphs():
    metric = DependencyGraphF1()
    metric(*tensors([({}, {})], num_tokens=3))
    scores = metric.get_metric()
    assert scores["labeled_exact_match"] == scores["unlabeled_exact_match"] == 1.0
    assert scores["labeled_f1"] == scores["labeled_precision"] == scores["labeled_recall"] == 0.0


def test_only_instances_under_the_mask_count():
    metric, expected = DependencyGraphF1(), DependencyGraphF1()
    metric(*tensors([FIRST, SECOND, THIRD], num_tokens=5), mask=torch.tensor([True, False, True]))
    expected(*tensors([FIRST, THIRD], num_tokens=5))
    assert metric.get_metric() == expected.get_metric()


def slow_scores(pairs: List[Tuple[Graph, Graph]]) -> Dict[str, float]:
    scores = {}
    for name in ("labeled", "unlabeled"):

        def arcs(graph: Graph, labeled: bool = name == "labeled") -> Set[Tuple]:
            return {(*arc, label) if labeled and arc[1] else arc for arc, label in graph.items()}

        predicted = [arcs(first) for first, _ in pairs]
        gold = [arcs(second) for _, second in pairs]
        hits = sum(len(p & g) for p, g in zip(predicted, gold))
        num_predicted, num_gold = sum(map(len, predicted)), sum(map(len, gold))
        precision = hits / num_predicted if num_predicted else 0.0
        recall = hits / num_gold if num_gold else 0.0
        scores[f"{name}_precision"], scores[f"{name}_recall"] = precision, recall
        scores[f"{name}_f1"] = 2 * precision * recall / (precision + recall) if hits else 0.0
        scores[f"{name}_exact_match"] = sum(p == g for p, g in zip(predicted, gold)) / len(pairs)
    return scores


TOKENS = 4
GRAPHS = st.dictionaries(
    st.tuples(st.integers(1, TOKENS - 1), st.integers(0, TOKENS - 1)).filter(lambda arc: arc[0] != arc[1]),
    st.sampled_from("ab"),
).map(lambda graph: {arc: label if arc[1] else "root" for arc, label in graph.items()})


@given(st.lists(st.tuples(GRAPHS, GRAPHS), min_size=1, max_size=4), st.integers(0, 3))
def test_against_sets_of_arcs(pairs: List[Tuple[Graph, Graph]], cut: int):
    metric = DependencyGraphF1()
    for part in (pairs[:cut], pairs[cut:]):  # Also in two batches, of which one may be empty.
        metric(*tensors(part, TOKENS))
    assert metric.get_metric() == pytest.approx(slow_scores(pairs))
