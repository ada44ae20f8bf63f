from typing import List, Optional, Tuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spigot_allennlp.metrics import MaskedMean, TreeScores


def padded(rows: List[List[int]]) -> torch.Tensor:
    """`(batch, tokens)`, with -1 at ROOT and at padding."""
    width = max(map(len, rows))
    return torch.tensor([[-1, *row, *[-1] * (width - len(row))] for row in rows])


def test_by_hand():
    metric = TreeScores()
    heads, relations = padded([[2, 0, 2], [0]]), [["nsubj", "root", "obl:on"], ["root"]]
    gold_heads, gold_relations = padded([[2, 0, 2], [0]]), [["nsubj:pass", "dep", "obl:in"], ["root"]]
    metric(heads, gold_heads, relations, gold_relations)
    # 3 of 4 relations are right, as subtypes do not count; depths 2 and 1.
    assert metric.get_metric() == pytest.approx({"uas": 1.0, "las": 3 / 4, "tree_depth": 1.5})
    metric(padded([[0, 1, 2, 3]]))
    assert metric.get_metric(reset=True) == pytest.approx({"uas": 1.0, "las": 3 / 4, "tree_depth": 7 / 3})
    assert metric.get_metric() == {}


def test_a_relation_counts_only_with_its_head():
    metric = TreeScores()
    metric(padded([[2, 0]]), padded([[0, 1]]), [["det", "root"]], [["det", "root"]])
    assert metric.get_metric()["las"] == 0.0


@pytest.mark.parametrize("relations, gold_relations", [(None, [["a", "b", "c"]]), ([["a", "b", "c"]], [None])])
def test_words_without_a_gold_head_or_relation_do_not_count(relations, gold_relations):
    metric = TreeScores()
    metric(padded([[2, 0, 2]]), padded([[-1, 0, -1]]), relations, gold_relations)
    assert metric.get_metric()["uas"] == 1.0
    assert "las" not in metric.get_metric()


def test_a_cyclic_tree_has_no_depth():
    metric = TreeScores()
    metric(padded([[2, 1, 0], [0, 1, 2]]))
    assert metric.get_metric() == {"tree_depth": 3.0}


def test_nothing_counted():
    metric = TreeScores()
    assert metric.get_metric() == {}
    metric(padded([[-1, -1]]), padded([[-1, -1]]))
    assert metric.get_metric() == {}


def slow_depth(heads: List[int]) -> Optional[int]:
    depths = []
    for word in range(1, len(heads) + 1):
        path = [word]
        while path[-1] != 0:
            path.append(heads[path[-1] - 1])
            if len(path) > len(heads) + 1:
                return None
        depths.append(len(path) - 1)
    return max(depths)


# Each word with any head but itself, predicted and gold.
ANY_HEADS = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*[st.tuples(*[st.sampled_from([h for h in range(n + 1) if h != d + 1]) for d in range(n)])] * 2)
)


@given(st.lists(ANY_HEADS, min_size=1, max_size=4))
def test_against_a_slow_count(sentences: List[Tuple[Tuple[int, ...], Tuple[int, ...]]]):
    metric = TreeScores()
    predicted, gold = (padded([list(pair[which]) for pair in sentences]) for which in (0, 1))
    metric(predicted, gold)
    hits = [p == g for pair in sentences for p, g in zip(*pair)]
    expected = {"uas": sum(hits) / len(hits)}
    depths = [depth for depth in (slow_depth(list(pair[0])) for pair in sentences) if depth is not None]
    if depths:
        expected["tree_depth"] = sum(depths) / len(depths)
    assert metric.get_metric() == pytest.approx(expected)


def test_masked_mean():
    mean = MaskedMean()
    assert torch.tensor(mean.get_metric()).isnan()
    mean(torch.tensor([1.0, 100.0, float("nan")]), torch.tensor([True, False, False]))
    mean(torch.tensor([True, True]), torch.tensor([True, True]))
    mean(torch.tensor([]), torch.tensor([], dtype=torch.bool))
    assert mean.get_metric(reset=True) == 1.0
    mean(torch.tensor([[0.5, 1.5], [4.0, 7.0]], requires_grad=True), torch.tensor([[True, True], [True, False]]))
    assert mean.get_metric() == 2.0
