import json
import logging
from pathlib import Path
from typing import Any

import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Token, Vocabulary
from allennlp.data.dataset_readers.dataset_reader import WorkerInfo
from allennlp.data.tokenizers import WhitespaceTokenizer

from spigot_allennlp.data import SnliPairsDatasetReader
from tests.conftest import FIXTURES


def line(**keys: Any) -> str:
    entry = {"gold_label": "neutral", "sentence1": "A dog's bone.", "sentence2": "It barks!", **keys}
    return json.dumps({key: value for key, value in entry.items() if value is not ...}, ensure_ascii=False)


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_fields(tmp_path):
    path = write(tmp_path / "x.jsonl", line(), "", line(gold_label="entailment", pairID="7", sentence2="È così ."))
    first, second = SnliPairsDatasetReader().read(path)
    assert first.fields.keys() == {"premise", "hypothesis", "label", "metadata"}
    assert [token.text for token in first["premise"]] == ["A", "dog", "'s", "bone", "."]
    assert [token.text for token in first["hypothesis"]] == ["It", "barks", "!"]
    assert [first["label"].label, second["label"].label] == ["neutral", "entailment"]
    assert second["metadata"].metadata == {
        "premise_words": ["A", "dog", "'s", "bone", "."],
        "hypothesis_words": ["È", "così", "."],
    }
    vocab = Vocabulary.from_instances([first, second])
    for name in ("premise", "hypothesis"):
        first.index_fields(vocab)
        assert first[name].as_tensor(first[name].get_padding_lengths())["tokens"]["tokens"].min() > 1


def test_pairs_without_consensus_are_left_out_and_counted(tmp_path, caplog):
    lines = [line(gold_label="-"), line(), line(gold_label="-"), line(gold_label="contradiction")]
    with caplog.at_level(logging.INFO, logger="spigot_allennlp"):
        instances = list(SnliPairsDatasetReader().read(write(tmp_path / "x.jsonl", *lines)))
    assert [instance["label"].label for instance in instances] == ["neutral", "contradiction"]
    assert "x.jsonl: 2 pairs without consensus" in caplog.text


def test_a_tokenizer_by_config(tmp_path):
    params = {"type": "snli_pairs", "tokenizer": "whitespace"}
    (instance,) = DatasetReader.from_params(Params(params)).read(write(tmp_path / "x", line()))
    assert [token.text for token in instance["premise"]] == ["A", "dog's", "bone."]


def test_from_text_and_from_words():
    reader = SnliPairsDatasetReader(tokenizer=WhitespaceTokenizer())
    instance = reader.text_to_instance(["A", Token("dog", lemma_="dog")], "It barks")
    assert "label" not in instance.fields
    assert [token.text for token in instance["premise"]] == ["A", "dog"] and instance["premise"][1].lemma_ == "dog"
    assert [token.text for token in instance["hypothesis"]] == ["It", "barks"]
    with pytest.raises(ConfigurationError, match="the hypothesis has no words"):
        reader.text_to_instance("A dog", [])


REFUSALS = [
    (line(gold_label=...), "the key 'gold_label' is missing; found 'sentence1', 'sentence2'"),
    (line(sentence1=..., sentence2=...), "the key 'sentence1', 'sentence2' is missing; found 'gold_label'"),
    ("{}", "the key 'gold_label', 'sentence1', 'sentence2' is missing; found none"),
    (line(gold_label="maybe"), "gold_label is 'maybe'; valid: 'entailment', 'neutral', 'contradiction', '-'"),
    (line(gold_label=["neutral"]), "gold_label is ['neutral']; valid: "),
    (line(gold_label=""), "gold_label is ''; valid: "),
    (line(sentence1=" \t"), "'sentence1' is ' \\t'; valid: a sentence of at least one word"),
    (line(sentence2=None), "'sentence2' is None; valid: a sentence of at least one word"),
    (line(sentence2=["It"]), "'sentence2' is ['It']; valid: "),
    ("neutral\tA dog\tIt barks", "the line is not JSON: Expecting value"),
    (line()[:-5], "the line is not JSON: "),
    ("[" * 100_000, "the line is not JSON: "),
    ("[1, 2]", "[1, 2] is not an object; valid: an object with the keys gold_label, sentence1, sentence2"),
    (json.dumps({f"key{n}": n for n in range(1000)}), "is missing; found 'key0', "),
]


class TestRefusals:
    @pytest.mark.parametrize("wrong, problem", REFUSALS, ids=[problem for _, problem in REFUSALS])
    def test_lines(self, tmp_path, wrong, problem):
        path = write(tmp_path / "x.jsonl", line(), "", wrong)
        with pytest.raises(ConfigurationError) as error:
            list(SnliPairsDatasetReader().read(path))
        message = str(error.value)
        assert f"{path}:3: " in message and problem in message and len(message) < 400

    @pytest.mark.parametrize("lines", [[], ["", " "], [line(gold_label="-")]])
    def test_nothing_labelled(self, tmp_path, lines):
        with pytest.raises(ConfigurationError, match=r"x.jsonl: the file holds no labelled pairs"):
            list(SnliPairsDatasetReader().read(write(tmp_path / "x.jsonl", *lines)))

    def test_no_utf8(self, tmp_path):
        (tmp_path / "x").write_bytes(line().encode() + b"\n\xff\n")
        with pytest.raises(ConfigurationError, match="x:2: byte 1 of the line is not valid UTF-8"):
            list(SnliPairsDatasetReader().read(str(tmp_path / "x")))

    def test_an_unknown_key(self):
        with pytest.raises(ConfigurationError, match="SnliPairsDatasetReader has no key 'token_indexer'"):
            SnliPairsDatasetReader(token_indexer={})


def test_workers_share_the_instances(tmp_path):
    path = write(tmp_path / "x.jsonl", *(line(sentence2=f"word{number}") for number in range(5)))
    seen = []
    for number in range(2):
        reader = SnliPairsDatasetReader()
        reader._set_worker_info(WorkerInfo(2, number))
        seen.append([instance["hypothesis"][0].text for instance in reader.read(path)])
    assert seen == [["word0", "word2", "word4"], ["word1", "word3"]]


def test_fixtures():
    instances = list(SnliPairsDatasetReader().read(str(FIXTURES / "snli" / "train.jsonl")))
    assert len(instances) >= 75
    assert {instance["label"].label for instance in instances} == {"entailment", "neutral", "contradiction"}
