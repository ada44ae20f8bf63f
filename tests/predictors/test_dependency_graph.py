"""What may be parsed, and what comes out: JSON, SDP and CoNLL-U that read back to the same graph."""

import io
import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.models import Model, load_archive
from allennlp.predictors import Predictor

from spigot_allennlp.data import Sentence, parse_conllu, parse_sdp
from spigot_allennlp.predictors import DependencyGraphPredictor
from tests.conftest import FIXTURES
from tests.models.parsers import build
from tests.training.small import configuration, write_corpus

NATIVE = {
    "conllu": ({"type": "conllu_graphs"}, FIXTURES / "graphs" / "dev.conllu"),
    "sdp": ({"type": "sdp"}, FIXTURES / "graphs" / "dev.sdp"),
    "augmented sdp": ({"type": "sdp"}, FIXTURES / "graphs" / "dev.augmented.sdp"),
    "sdp with companion": (
        {"type": "sdp", "companion": str(FIXTURES / "graphs" / "dev.cpn")},
        FIXTURES / "graphs" / "dev.sdp",
    ),
}


def with_arcs(model: Model, instances: List[Instance]) -> Model:
    """A model without training predicts no arc, or all of them: here, about every fifth."""
    batch = Batch(instances)
    batch.index_instances(model.vocab)
    scores = model(**batch.as_tensor_dict())["arc_scores"]
    model.graph_head.arc_scorer.attention._bias.data -= scores[scores != 0].quantile(0.8)
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    reader = DatasetReader.from_params(Params({"type": "conllu_graphs"}))
    instances = list(reader.read(str(FIXTURES / "graphs" / "dev.conllu")))
    torch.manual_seed(0)
    params = Params(configuration(Path("unused"))["model"])
    return with_arcs(Model.from_params(params, vocab=Vocabulary.from_instances(instances)).eval(), instances)


@pytest.fixture(scope="module")
def reader() -> DatasetReader:
    return DatasetReader.from_params(Params({"type": "conllu_graphs"}))


def predictor(model: Model, reader: DatasetReader, **keys: Any) -> DependencyGraphPredictor:
    made = Predictor.by_name("dependency_graph")(model, reader, **keys)
    assert isinstance(made, DependencyGraphPredictor)
    return made


def predict_lines(predictor: DependencyGraphPredictor, lines: List[str], batch_size: int = 3) -> str:
    """As `allennlp predict` does: blank lines are left out, and single inputs go another way than batches."""
    inputs = [predictor.load_line(line) for line in lines if not line.isspace()]
    text = ""
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        outputs = [predictor.predict_json(batch[0])] if len(batch) == 1 else predictor.predict_batch_json(batch)
        text += "".join(map(predictor.dump_line, outputs))
    return text


class TestInput:
    def test_the_three_kinds_of_lines_are_the_same(self, model, reader):
        lines = [
            "Anna saw the dog.\n",
            '{"sentence": "Anna saw the dog."}\n',
            '{"tokens": ["Anna", "saw", "the", "dog", "."]}\n',
            "  Anna saw the dog.  \r\n",
        ]
        outputs = predict_lines(predictor(model, reader), lines).splitlines()
        assert len(outputs) == 4 and len(set(outputs)) == 1
        output = json.loads(outputs[0])
        assert output["words"] == ["Anna", "saw", "the", "dog", "."]
        assert set(output) == {"words", "tops", "arcs", "heads", "deprels"}

    def test_methods_for_python(self, model, reader):
        parser = predictor(model, reader)
        assert parser.predict("Anna laughed.") == parser.predict_tokenized(["Anna", "laughed", "."])

    def test_blank_lines_are_skipped(self, model, reader):
        outputs = predict_lines(predictor(model, reader), ["Stop.\n", "\n", " \t \n", "\u00a0\n", "Stop.\n"])
        assert len(outputs.splitlines()) == 2

    def test_unicode(self, model, reader):
        words = ["Žofie", "viděla", "犬", "🐕", "naïve", "…"]
        outputs = predict_lines(predictor(model, reader), [json.dumps({"tokens": words}) + "\n", " ".join(words)])
        assert [json.loads(line)["words"] for line in outputs.splitlines()] == [words, words]
        assert "犬" in outputs  # For people, not escaped.

    def test_tokens_may_contain_spaces(self, model, reader):
        output = predictor(model, reader, output_format="conllu").predict_tokenized(["10 000", "dogs"])
        (sentence,) = parse_conllu(io.StringIO(output["conllu"]), "output")
        assert sentence.words == ["10 000", "dogs"]

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_batches_change_nothing(self, model, reader, batch_size):
        lines = (FIXTURES / "text" / "sentences.txt").read_text().splitlines(keepends=True)
        assert len(lines) >= 10
        assert predict_lines(predictor(model, reader), lines, batch_size) == predict_lines(
            predictor(model, reader), lines, 100
        )

    @pytest.mark.parametrize(
        "line, message",
        [
            ('{"sentence": "unfinished', "input line 2 (not counting blank ones) begins with '{' but is not JSON"),
            ('{"text": "Stop."}', 'nothing to parse in {"text": "Stop."}. Valid: plain text, {"sentence": "..."}'),
            ('{"sentence": ""}', 'nothing to parse in {"sentence": ""}'),
            ('{"sentence": "   "}', "with at least one word"),
            ('{"sentence": 3}', "nothing to parse"),
            ('{"tokens": []}', "nothing to parse"),
            ('{"tokens": ["a", ""]}', "nothing to parse"),
            ('{"tokens": "Stop."}', "nothing to parse"),
            ('{"tokens": ["Stop", 3]}', "nothing to parse"),
            ('{"sentence": "Stop.", "tokens": "Stop."}', "nothing to parse"),
        ],
    )
    def test_refused(self, model, reader, line, message):
        with pytest.raises(ConfigurationError) as error:
            predict_lines(predictor(model, reader), ["Stop.\n", line])
        assert message in str(error.value)

    @pytest.mark.parametrize("native", NATIVE)
    def test_native_files(self, model, native):
        """As with `--use-dataset-reader`: annotation is kept, and a sentence alone is as in a batch."""
        params, path = NATIVE[native]
        reader = DatasetReader.from_params(Params(dict(params)))
        instances = list(reader.read(str(path)))[:6]
        parser = predictor(model, reader)
        together = parser.predict_batch_instance(instances)
        assert [output["sentence_id"] for output in together] == [i["metadata"]["sentence_id"] for i in instances]
        assert [parser.predict_instance(instance) for instance in instances] == together


class TestOutput:
    def instances(self, reader: DatasetReader, path: Path) -> List:
        return list(reader.read(str(path)))[:20]

    def test_conllu_reads_back_to_the_same(self, model, reader):
        instances = self.instances(reader, FIXTURES / "graphs" / "dev.conllu")
        as_json = predictor(model, reader).predict_batch_instance(instances)
        writer = predictor(model, reader, output_format="conllu")
        text = "".join(map(writer.dump_line, writer.predict_batch_instance(instances)))
        sentences = list(parse_conllu(io.StringIO(text), "output"))
        self.same(sentences, as_json)
        for sentence, instance in zip(sentences, instances):
            given = instance["metadata"]["graph"]
            for name in ("sentence_id", "comments", "lemmas", "pos_tags", "tags", "feats", "misc", "multiword_tokens"):
                assert getattr(sentence, name) == getattr(given, name)
            assert sentence.deprels is not None

    @pytest.mark.parametrize("native", ["sdp", "augmented sdp", "sdp with companion"])
    def test_sdp_reads_back_to_the_same(self, model, native):
        params, path = NATIVE[native]
        reader = DatasetReader.from_params(Params(dict(params)))
        instances = self.instances(reader, path)
        as_json = predictor(model, reader).predict_batch_instance(instances)
        writer = predictor(model, reader, output_format="sdp")
        text = "".join(writer.dump_line(output) for i in instances for output in [writer.predict_instance(i)])
        assert text.startswith("#SDP 2015\n") and text.count("#SDP") == 1
        sentences = list(parse_sdp(io.StringIO(text), "output"))
        self.same(sentences, as_json)
        for sentence, instance in zip(sentences, instances):
            given = instance["metadata"]["graph"]
            assert (sentence.sentence_id, sentence.lemmas) == (given.sentence_id, given.lemmas)

    @pytest.mark.parametrize("output_format, parse", [("conllu", parse_conllu), ("sdp", parse_sdp)])
    def test_from_plain_text(self, model, reader, output_format, parse):
        lines = (FIXTURES / "text" / "sentences.txt").read_text().splitlines(keepends=True)
        as_json = [json.loads(line) for line in predict_lines(predictor(model, reader), lines).splitlines()]
        text = predict_lines(predictor(model, reader, output_format=output_format), lines)
        self.same(list(parse(io.StringIO(text), "output")), as_json)

    def same(self, sentences: List[Sentence], outputs: List[Dict[str, Any]]) -> None:
        assert [sentence.words for sentence in sentences] == [output["words"] for output in outputs]
        assert sum(len(output["arcs"]) for output in outputs) > 2 * len(outputs)
        assert any(output["tops"] for output in outputs)
        for sentence, output in zip(sentences, outputs):
            assert sentence.heads == output["heads"]
            assert sentence.deprels == output["deprels"]
            assert sentence.arcs == {(arc["dependent"], arc["head"]): arc["label"] for arc in output["arcs"]}
            assert sorted(sentence.tops) == output["tops"]

    @pytest.mark.parametrize(
        "structure",
        [
            {"type": "projective_tree", "single_root": False},
            {"type": "nonprojective_tree", "single_root": False},
            "single_head",
            "arc_graph",
        ],
        ids=str,
    )
    @pytest.mark.parametrize("output_format, parse", [("conllu", parse_conllu), ("sdp", parse_sdp)])
    def test_structures_that_the_format_does_not_know(self, tmp_path, reader, structure, output_format, parse):
        """Heads that form a cycle, or several roots in CoNLL-U, would not read back: the graph does."""
        parser = build(write_corpus(tmp_path / "corpus.conllu"), structure=structure)
        model = with_arcs(parser.model, parser.instances)
        for seed in range(2):
            torch.manual_seed(seed)
            torch.nn.init.normal_(model.syntactic_head.arc_scorer.attention._weight_matrix, std=3.0)
            as_json = predictor(model, reader).predict_batch_instance(parser.instances)
            writer = predictor(model, reader, output_format=output_format)
            text = "".join(map(writer.dump_line, writer.predict_batch_instance(parser.instances)))
            sentences = list(parse(io.StringIO(text), "output"))
            for sentence, output in zip(sentences, as_json, strict=True):
                assert sentence.arcs == {(arc["dependent"], arc["head"]): arc["label"] for arc in output["arcs"]}
                multi_root_tree = isinstance(structure, dict) and output_format == "sdp"
                assert sentence.heads == (output["heads"] if multi_root_tree else None)

    def test_no_syntax(self, tmp_path, reader):
        parser = build(write_corpus(tmp_path / "corpus.conllu"), syntax="none")
        writer = predictor(with_arcs(parser.model, parser.instances), reader, output_format="conllu")
        text = "".join(map(writer.dump_line, writer.predict_batch_instance(parser.instances)))
        sentences = list(parse_conllu(io.StringIO(text), "output"))
        assert all(sentence.heads is None and sentence.arcs is not None for sentence in sentences)

    def test_a_parser_of_trees_alone(self):
        archive = load_archive(FIXTURES / "models" / "syntactic_parser.tar.gz")
        parser = Predictor.from_archive(archive)
        output = parser.predict_json({"sentence": "The poet slept."})
        assert set(output) == {"words", "heads", "deprels"}
        assert output["heads"] == [2, 3, 0, 3]
        writer = Predictor.from_archive(archive, extra_args={"output_format": "conllu"})
        (sentence,) = parse_conllu(
            io.StringIO(writer.predict_json({"sentence": "The poet slept."})["conllu"]), "output"
        )
        assert (sentence.heads, sentence.deprels, sentence.arcs) == (output["heads"], output["deprels"], None)
        writer = Predictor.from_archive(archive, extra_args={"output_format": "sdp"})
        with pytest.raises(ConfigurationError, match="without a graph as SDP"):
            writer.predict_json({"sentence": "The poet slept."})

    @pytest.mark.parametrize(
        "keys, message",
        [
            ({"output_format": "xml"}, "output_format is 'xml'; valid: 'json', 'sdp', 'conllu'"),
            (
                {"output": "sdp"},
                "DependencyGraphPredictor has no key 'output'; valid: model, dataset_reader, tokenizer",
            ),
        ],
    )
    def test_refused(self, model, reader, keys, message):
        with pytest.raises(ConfigurationError) as error:
            predictor(model, reader, **keys)
        assert message in str(error.value)


class TestTokenizerOfTheCommandLine:
    """`--predictor-args` gives plain JSON."""

    def test_pipeline(self, model, reader, tmp_path):
        pipeline = spacy.blank("en")
        # Splits at underscores, which blank English does not do: so it is seen which one was used.
        pipeline.tokenizer.infix_finditer = re.compile("_").finditer
        pipeline.to_disk(tmp_path / "pipeline")
        tokenizer = {"type": "offline_spacy", "pipeline": str(tmp_path / "pipeline")}
        words = predictor(model, reader, tokenizer=tokenizer).predict("rock_n roll")["words"]
        assert words == ["rock", "_", "n", "roll"]
        words = predictor(model, reader, tokenizer="offline_spacy").predict("rock_n roll")["words"]
        assert words == ["rock_n", "roll"]

    def test_missing_pipeline(self, model, reader):
        with pytest.raises(ConfigurationError, match="spaCy has no pipeline 'no_such_pipeline' here"):
            predictor(model, reader, tokenizer={"type": "offline_spacy", "pipeline": "no_such_pipeline"})
