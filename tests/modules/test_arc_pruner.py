import logging

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.modules import ArcPruner
from spigot_allennlp.structures import ArcGraph


class Scores(torch.nn.Module):
    """A model whose arcs have these scores."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def score_arcs(self, tokens: None) -> tuple:
        return self.scores, torch.ones(self.scores.shape[:2], dtype=torch.bool)


def test_the_most_probable_arguments_of_a_head_are_kept():
    scores = torch.full((1, 5, 5), -1.0)
    scores[0, 1:, 2] = torch.tensor([-0.5, 0.0, -2.0, -0.6])
    scores[0, 1:, 3] = torch.tensor([0.5, 0.6, 0.0, 0.7])
    kept = ~ArcPruner(Scores(scores), max_arguments=2)(None, ArcGraph()).inference
    assert kept[0, 1:, 2].tolist() == [True, True, False, True], "itself is not an argument"
    assert kept[0, 1:, 3].tolist() == [True, True, True, True], "none of the best structure is removed"


@pytest.mark.parametrize("gold, warns", [([1], True), ([3], False)])
def test_gold_arcs_that_are_removed_are_reported(caplog, gold, warns):
    scores = torch.full((1, 4, 4), -5.0)
    scores[0, 3, 2] = 5.0
    pruner = ArcPruner(Scores(scores), threshold=0.1)
    arcs = torch.zeros(1, 4, 4, dtype=torch.bool)
    arcs[0, gold, 2] = True
    pruner(None, ArcGraph(), arcs)
    with caplog.at_level(logging.WARNING):
        pruner.get_metrics()
        assert not caplog.records
        metrics = pruner.get_metrics(reset=True)
    assert metrics["_pruning_recall"] == (0.0 if warns else 1.0)
    messages = [record.getMessage() for record in caplog.records]
    assert [("removes 100.0% of the gold arcs" in message) for message in messages] == [True] * warns


def test_bad_input():
    with pytest.raises(ConfigurationError, match="max_arguments is 0"):
        ArcPruner(Scores(torch.zeros(1, 2, 2)), max_arguments=0)
