"""From pairs of sentences to labels, in Python and on the command line."""

import json
from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.predictors import Predictor

from spigot_allennlp.predictors import SentencePairPredictor
from tests.conftest import FIXTURES
from tests.predictors.predicting import predict, train

KEYS = ["premise_words", "hypothesis_words", "label", "probabilities", "premise_heads", "hypothesis_heads"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    overrides = {
        "train_data_path": str(FIXTURES / "snli" / "dev.jsonl"),
        "model.hidden_dim": 10,
        "model.arc_scorer.hidden_dim": 10,
        "trainer.num_epochs": 1,
    }
    return train("entailment/latent.jsonnet", tmp_path_factory.mktemp("entailment") / "run", **overrides)


@pytest.fixture(scope="module")
def predictor(archive) -> Predictor:
    return Predictor.from_path(str(archive))


def test_from_text_and_from_words(predictor):
    assert type(predictor) is SentencePairPredictor
    output = predictor.predict("The cook slept.", "It didn't.")
    assert list(output) == KEYS
    assert output["premise_words"] == ["The", "cook", "slept", "."]
    assert output["hypothesis_words"] == ["It", "did", "n't", "."]
    assert output == predictor.predict(output["premise_words"], output["hypothesis_words"])
    assert output == predictor.predict_json({"premise": "The cook slept.", "hypothesis": output["hypothesis_words"]})
    for sentence in ("premise", "hypothesis"):
        assert len(output[f"{sentence}_heads"]) == 4 and 0 in output[f"{sentence}_heads"]
    assert output["label"] in output["probabilities"] and len(output["probabilities"]) == 3


def test_plain_text_and_json_lines(archive, tmp_path):
    path = tmp_path / "input"
    pairs = [
        {"premise": "The cook slept .", "hypothesis": "It did not ."},
        {"premise": ["a b", "c"], "hypothesis": "d"},
    ]
    lines = ["The cook slept .\tIt did not .", "", *map(json.dumps, pairs), "{ a\tb }"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    outputs = predict(archive, path)
    assert outputs[0] == outputs[1]
    assert outputs[2]["premise_words"] == ["a b", "c"] and outputs[2]["hypothesis_words"] == ["d"]
    assert outputs[3]["premise_words"] == ["{", "a"] and outputs[3]["hypothesis_words"] == ["b", "}"]
    assert predict(archive, path, "--batch-size", "3") == outputs


def test_the_readers_own_format(archive, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text((FIXTURES / "snli" / "dev.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    outputs = predict(archive, path, "--use-dataset-reader")
    assert len(outputs) == 28 and all(list(output) == KEYS for output in outputs)


@pytest.mark.parametrize(
    "line", ["one sentence", "a\tb\tc", "a\t", '{"premise": "a"}', '{"premise": "a", "hypothesis": []}', "{}"]
)
def test_refusals(predictor, line):
    with pytest.raises(ConfigurationError, match="Valid: premise<TAB>hypothesis"):
        predictor.predict_json(predictor.load_line(line + "\n"))


def test_a_line_that_is_no_json(predictor):
    with pytest.raises(ConfigurationError, match="begins with '{' but is not JSON.*Valid: premise<TAB>hypothesis"):
        predictor.load_line('{"premise": "a"')
