"""What the archives in `fixtures/models` predict: a change of what their parameters mean has to be intended."""

from typing import Any, Dict, List

import pytest
from allennlp.predictors import Predictor

from tests.conftest import FIXTURES

SENTENCES = ["The critic who praised the film saw a dog .", "A teacher cooked the quiet soup ."]


def predicted(name: str) -> List[Dict[str, Any]]:
    predictor = Predictor.from_path(str(FIXTURES / "models" / f"{name}.tar.gz"))
    return [predictor.predict_tokenized(sentence.split()) for sentence in SENTENCES]


def test_trees():
    first, second = predicted("syntactic_parser")
    assert first["heads"] == [2, 4, 4, 0, 6, 7, 4, 9, 7, 4]
    assert first["deprels"] == "det nsubj advmod root det nsubj advcl det obj punct".split()
    assert second["heads"] == [2, 3, 0, 6, 6, 3, 3]
    assert second["deprels"] == "det nsubj root det amod obj punct".split()


def test_graphs():
    first, second = predicted("semantic_parser")
    assert first["tops"] == [4, 7]
    assert arcs(first) == (
        "det(2, 1) nsubj(4, 2) nsubj(7, 2) nsubj(4, 3) nsubj(7, 3) det(6, 5) nsubj(7, 6) conj(4, 7) det(9, 8) "
        "obj(7, 9) punct(4, 10)"
    )
    assert second["tops"] == [3]
    assert arcs(second) == "det(2, 1) nsubj(3, 2) det(6, 4) amod(6, 5) obj(3, 6) punct(3, 7)"
    assert [arc["probability"] for arc in second["arcs"]] == pytest.approx(
        [1.0, 0.9989, 0.9996, 0.9996, 0.9799, 1.0], abs=2e-4
    )


def arcs(output: Dict[str, Any]) -> str:
    return " ".join(f"{arc['label']}({arc['head']}, {arc['dependent']})" for arc in output["arcs"])
