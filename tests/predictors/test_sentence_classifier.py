"""From text to labels, in Python and on the command line."""

from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.predictors import Predictor

from spigot_allennlp.predictors import SentenceClassifierPredictor
from tests.conftest import FIXTURES
from tests.predictors.predicting import predict, train

KEYS = ["words", "label", "probabilities", "heads"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("classifier")
    corpus = directory / "corpus.tsv"
    corpus.write_text("1\tgood\n0\tbad\n1\tgood film\n0\ta bad film\n" * 4)
    overrides = {
        "train_data_path": str(corpus),
        "validation_data_path": str(corpus),
        "model.text_field_embedder.token_embedders.tokens": {"type": "embedding", "embedding_dim": 10},
        "trainer.num_epochs": 10,
        "trainer.optimizer.lr": 0.02,
    }
    return train("sentiment/latent.jsonnet", directory / "run", **overrides)


@pytest.fixture(scope="module")
def predictor(archive) -> Predictor:
    return Predictor.from_path(str(archive))


def test_it_is_the_default(predictor):
    assert type(predictor) is SentenceClassifierPredictor
    # AllenNLP has a text_classifier of its own, which stays what it is.
    assert Predictor.by_name("text_classifier").__module__.startswith("allennlp.")


def test_from_text_and_from_words(predictor):
    output = predictor.predict("A film, very good.")
    assert list(output) == KEYS
    assert output["words"] == ["A", "film", ",", "very", "good", "."]
    assert output == predictor.predict_tokenized(output["words"])
    assert output == predictor.predict_json({"sentence": "A film, very good."})
    assert len(output["heads"]) == 6 and 0 in output["heads"]
    assert [predictor.predict_tokenized(words)["label"] for words in (["good"], ["bad"])] == ["1", "0"]


def test_plain_text_and_json_lines(archive, tmp_path):
    path = tmp_path / "input"
    path.write_text('good film\n\n{"sentence": "a bad film"}\n{"tokens": ["(", "très good", ")"]}\n', encoding="utf-8")
    outputs = predict(archive, path)
    assert [output["words"] for output in outputs] == [["good", "film"], ["a", "bad", "film"], ["(", "très good", ")"]]
    assert [output["label"] for output in outputs[:2]] == ["1", "0"]
    for output in outputs:
        assert list(output) == KEYS and len(output["heads"]) == len(output["words"])
    assert predict(archive, path, "--batch-size", "3") == outputs


def test_the_readers_own_formats(archive, tmp_path):
    path = tmp_path / "trees.txt"
    path.write_text((FIXTURES / "sst" / "dev.txt").read_text(encoding="utf-8"), encoding="utf-8")
    outputs = predict(archive, path, "--use-dataset-reader")
    assert len(outputs) == 51
    assert outputs[0]["words"][:3] == ["The", "poem", "that"]
    (tmp_path / "lines").write_text("1\tgood film\n")
    (output,) = predict(archive, tmp_path / "lines", "--use-dataset-reader")
    assert output["words"] == ["good", "film"] and output["label"] == "1"


@pytest.mark.parametrize("given", [{}, {"sentence": " "}, {"tokens": []}, {"tokens": ["a", 1]}, {"text": "a"}])
def test_refusals(predictor, given):
    with pytest.raises(ConfigurationError, match="Valid: plain text"):
        predictor.predict_json(given)


@pytest.mark.parametrize("line", ["{ text in braces }", "{the end", "{", "{{"])
def test_text_may_begin_with_a_brace(predictor, line):
    assert predictor.load_line(line + "\n") == {"sentence": line}


def test_a_line_that_is_no_json(predictor):
    with pytest.raises(ConfigurationError, match="begins with '{' but is not JSON"):
        predictor.load_line('{"sentence": "a"')
