"""Predicted graphs in which every word can be reached from a top node."""

from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from tests.models.parsers import build
from tests.models.test_structured_losses import CONSTRAINTS, heads
from tests.training.small import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


def unreached(tops: List[int], arcs: List[Dict[str, Any]], length: int) -> int:
    reached, agenda = set(tops), list(tops)
    while agenda:
        head = agenda.pop()
        found = {arc["dependent"] for arc in arcs if arc["head"] == head} - reached
        reached |= found
        agenda += found
    return length - len(reached)


# What draws arcs: from none at all to nearly all.
@pytest.mark.parametrize("bias", [-1e4, 0.0, 3.0])
@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_every_word_is_reached(corpus, loss, bias):
    counts = {}
    for connected in (False, True):
        parser = build(corpus, **heads(loss, connected=connected))
        torch.manual_seed(0)
        for parameter in parser.model.graph_head.arc_scorer.parameters():
            torch.nn.init.normal_(parameter)
        parser.model.graph_head.arc_scorer.attention._bias.data += bias
        output = parser.model.make_output_human_readable(parser.forward())
        sentences = list(zip(output["tops"], output["arcs"], map(len, output["words"])))
        for tops, arcs, length in sentences:
            assert all(arc["label"] in ("dep", "obj", "next") for arc in arcs)
            assert not connected or (tops and unreached(tops, arcs, length) == 0)
        counts[connected] = sum(unreached(*sentence) > 0 for sentence in sentences)
    assert counts[True] == 0
    assert counts[False] == 8 or bias >= 0


@pytest.mark.parametrize("key", CONSTRAINTS)
def test_not_beside_other_constraints(corpus, key):
    with pytest.raises(ConfigurationError, match="connected is true beside predicate_dim or deterministic_roles"):
        build(corpus, graph_head={"connected": True, key: CONSTRAINTS[key]})
