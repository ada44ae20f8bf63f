"""Text as it comes, and what is said of lines that cannot be read: with `allennlp predict` and in Python."""

import gzip
import io
import json
import re
import sys
from typing import Any, List
from unittest import mock

import pytest
import spacy
from allennlp.commands import main
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Token
from allennlp.models import Archive, load_archive
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.data import Sentence, parse_conllu
from spigot_allennlp.data.readers.conllu_graphs import ConlluGraphsDatasetReader
from spigot_allennlp.data.tokenizers.offline_spacy import OfflineSpacyTokenizer
from spigot_allennlp.parser import Parser
from spigot_allennlp.predictors import DependencyGraphPredictor, SentenceClassifierPredictor
from tests.conftest import FIXTURES

ESCAPES = {"s": " ", "t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
ARCHIVE = FIXTURES / "models" / "syntactic_parser.tar.gz"


@pytest.fixture(scope="module")
def archive() -> Archive:
    return load_archive(ARCHIVE)


def predictor(archive: Archive, **keys: Any) -> DependencyGraphPredictor:
    return DependencyGraphPredictor(archive.model, archive.dataset_reader, **keys)


def words_of(inputs: Any) -> List[List[str]]:
    return [[token.text for token in entry.instance["tokens"]] for entry in inputs]


def rebuilt(sentences: List[Sentence]) -> str:
    """The text of sentences, from words and MISC alone."""
    text = ""
    for sentence in sentences:
        text += "\n" if "# newpar" in sentence.comments and text else ""
        for word, misc in zip(sentence.words, sentence.misc):
            after = {"_": " ", "SpaceAfter=No": ""}.get(misc)
            if after is None:
                after = re.sub(r"\\(.)", lambda match: ESCAPES[match[1]], misc[len("SpacesAfter=") :])
            text += word + after
        last = sentence.misc[-1] == "_"
    return text.removesuffix(" ") if last else text


class TestParagraphs:
    TEXT = "Dr. Smith's dog (a \"poodle\") slept.  It didn't\tbark! Why? No idea…\n\nA headline without a stop\n"

    @pytest.mark.parametrize("name", ["text.txt", "text.txt.gz"])
    def test_are_split_and_can_be_rebuilt(self, archive, tmp_path, name):
        path = tmp_path / name
        content = ("\ufeff" + self.TEXT).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        output = tmp_path / "out.conllu"
        command = ["allennlp", "predict", str(ARCHIVE), str(path), "--output-file", str(output), "--silent"]
        with mock.patch.object(sys, "argv", [*command, "--predictor-args", '{"output_format": "conllu"}']):
            main()
        sentences = list(parse_conllu(io.StringIO(output.read_text(encoding="utf-8")), "out"))
        assert [sentence.words[0] for sentence in sentences] == ["Dr.", "It", "Why", "No", "A"]
        assert [sentence.sentence_id for sentence in sentences] == ["1", "2", "3", "4", "5"]
        assert ["# newpar" in sentence.comments for sentence in sentences] == [True, False, False, False, True]
        assert sentences[0].comments[-1] == '# text = Dr. Smith\'s dog (a "poodle") slept.'
        assert sentences[1].comments[-1] == "# text = It didn't bark!"
        assert sentences[0].misc[-1] == "SpacesAfter=\\s\\s" and sentences[0].misc[-2] == "SpaceAfter=No"
        assert rebuilt(sentences).replace(" \n", "\n") == self.TEXT.strip().replace("\n\n", "\n")

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(text=st.text(st.sampled_from("ab.!?'\"()- \t\u00a0\\|é"), min_size=1, max_size=30).filter(str.strip))
    def test_any_text_can_be_rebuilt(self, text):
        text = text.strip()
        tokenizer = OfflineSpacyTokenizer()
        sentences = tokenizer.split_sentences(text)
        starts = [sentence[0].idx for sentence in sentences] + [None]
        parsed = []
        for number, tokens in enumerate(sentences):
            stop = tokens[-1].idx + len(tokens[-1].text)
            following = None if starts[number + 1] is None else text[stop : starts[number + 1]]
            parsed.append(Sentence.from_text(text, tokens, following))
        assert rebuilt(parsed) == text

    def test_a_key_turns_it_off(self, archive, tmp_path):
        path = tmp_path / "text"
        path.write_text("One. Two.\nThree.\n")
        assert len(list(predictor(archive).read_inputs(str(path)))) == 3
        assert words_of(predictor(archive, split_sentences=False).read_inputs(str(path))) == [
            ["One", ".", "Two", "."],
            ["Three", "."],
        ]

    def test_json_is_a_sentence_as_it_stands(self, archive, tmp_path):
        path = tmp_path / "text"
        path.write_text('{"sentence": "One. Two."}\n')
        assert words_of(predictor(archive).read_inputs(str(path))) == [["One", ".", "Two", "."]]

    def test_another_tokenizer(self, archive, tmp_path):
        path = tmp_path / "text"
        path.write_text("It's one. It's two.\n")
        inputs = predictor(archive, tokenizer="whitespace").read_inputs(str(path))
        assert words_of(inputs) == [["It's", "one."], ["It's", "two."]]

    def test_in_python(self, archive):
        parser = predictor(archive)
        first, second = Parser(parser)("The poet slept. It rained.")
        assert first.heads == parser.predict("The poet slept.")["heads"] and second.words == ["It", "rained", "."]
        assert first.comments == ["# text = The poet slept."]
        assert first.misc == ["_", "_", "SpaceAfter=No", "_"]

    def test_standard_input_is_read_as_it_comes(self, archive, monkeypatch):
        taken = []

        def lines():
            for number in range(5):
                taken.append(number)
                yield "\ufeffOne.\n" if number == 0 else "Two.\n"

        monkeypatch.setattr(sys, "stdin", lines())
        inputs = predictor(archive).read_inputs("-")
        assert next(inputs) == {"sentence": "One."} and taken == [0]


class TestLinesThatCannotBeRead:
    @pytest.mark.parametrize(
        "line, message",
        [
            ('{"sentence": " "}', "nothing to parse in"),
            ("w " * 1500, "the sentence has 1500 words, more than"),
            ('{"sentence": "a"', "the line begins with '{' but is not JSON"),
            ('{"sentence": "a", "sentence": "b"}', "the key 'sentence' occurs twice"),
            ('{"sentence": "a", "id": 7}', "unknown key 'id'; valid: 'sentence', 'tokens'"),
            ('{"tokens": ["a"], "pos_tags": ["X"]}', "unknown key 'pos_tags'; valid: 'sentence', 'tokens'"),
            ('{"tokens": ["a", " b"]}', "token 2 is ' b'; a token must not begin or end with a blank"),
            ('{"tokens": ["a\\tb"]}', "token 1 is 'a\\tb'; a token"),
            ("1\tDogs\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_", "add --use-dataset-reader to the command"),
            ("1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_", "add --use-dataset-reader"),
            ("# sent_id = weblog-1", "add --use-dataset-reader"),
            ("#SDP 2015", "add --use-dataset-reader"),
            ("Собака спит.", "most letters of 'Собака спит .' are CYRILLIC; the model knows words in LATIN only"),
            ("狗在睡觉。", "are CJK; the model knows"),
        ],
    )
    def test_are_named(self, archive, tmp_path, line, message):
        path = tmp_path / "text"
        path.write_text("\n".join(["Stop."] * 5 + ["", line, "Stop."]), encoding="utf-8")
        inputs = predictor(archive).read_inputs(str(path))
        with pytest.raises(ConfigurationError) as error:
            list(inputs)
        assert str(error.value).startswith(f"{path}:7: ") and message in str(error.value)
        assert len(str(error.value)) < 700

    def test_a_key_skips_and_reports_them(self, archive, tmp_path, caplog):
        path, output = tmp_path / "text", tmp_path / "out"
        path.write_text('One. Two.\n\n{"sentence": ""}\n' + "w " * 1500 + "\nThree.\n")
        command = ["allennlp", "predict", str(ARCHIVE), str(path), "--output-file", str(output), "--silent"]
        command += ["--batch-size", "2", "--predictor-args", '{"skip_invalid_lines": true}']
        with mock.patch.object(sys, "argv", command):
            main()
        outputs = [json.loads(line) for line in output.read_text().splitlines()]
        assert [entry.get("line") for entry in outputs] == [None, None, 3, 4, None]
        assert "1500 words" in outputs[3]["error"] and outputs[4]["words"] == ["Three", "."]
        writer = predictor(archive, skip_invalid_lines=True, output_format="conllu")
        with caplog.at_level("WARNING"):
            text = "".join(map(writer.dump_line, writer.predict_batch_json(list(writer.read_inputs(str(path))))))
        assert len(list(parse_conllu(io.StringIO(text), "out"))) == 3
        assert f"{path}:3: skipped: nothing to parse" in caplog.text and "skipped 2 lines: [3, 4]" in caplog.text

    @pytest.mark.parametrize("text", ["", "\n \n"])
    def test_a_file_without_text(self, archive, tmp_path, text):
        (tmp_path / "text").write_text(text)
        with pytest.raises(ConfigurationError, match="text: nothing to predict on: no line has text. Valid: plain"):
            list(predictor(archive).read_inputs(str(tmp_path / "text")))

    def test_another_script_in_python(self, archive):
        with pytest.raises(ConfigurationError, match="are CYRILLIC"):
            predictor(archive).predict("Собака спит.")

    @pytest.mark.parametrize("line", ["(3 (2 So) (3 good))", "1\tgood film"])
    def test_files_of_classifiers(self, archive, line):
        classifier = SentenceClassifierPredictor(archive.model, archive.dataset_reader)
        with pytest.raises(ConfigurationError, match=r"input line 1 .*--use-dataset-reader"):
            classifier.load_line(line)
        assert classifier.load_line("(3 dogs) 1 cat") == {"sentence": "(3 dogs) 1 cat"}


class TestFeatures:
    def test_are_taken_where_the_model_has_them(self, archive):
        indexers = {"pos": {"type": "single_id", "namespace": "pos", "feature_name": "pos_"}}
        reader = ConlluGraphsDatasetReader.from_params(Params({"token_indexers": indexers}))
        parser = DependencyGraphPredictor(archive.model, reader)
        instance = parser._json_to_instance({"tokens": ["Dogs", "bark"], "pos_tags": ["NOUN", "VERB"]})
        assert [token.pos_ for token in instance["tokens"]] == ["NOUN", "VERB"]
        for given_, message in (
            ({"tokens": ["a"], "lemmas": ["a"]}, "unknown key 'lemmas'; valid: 'sentence', 'tokens', 'pos_tags'"),
            ({"tokens": ["a"], "pos_tags": ["X", "Y"]}, "'pos_tags' is .*as many strings as there are 'tokens'"),
            ({"sentence": "a", "pos_tags": ["X"]}, "'pos_tags' is .*as many strings as there are 'tokens'"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                parser._json_to_instance(given_)

    def test_predicted_ones_are_written(self, archive, tmp_path):
        nlp = spacy.blank("en")
        ruler = nlp.add_pipe("attribute_ruler")
        ruler.add([[{"LOWER": {"IN": ["word", "poet"]}}]], {"POS": "NOUN", "TAG": "NN", "LEMMA": "poet"})
        nlp.to_disk(tmp_path / "rules")
        reader = ConlluGraphsDatasetReader(archive.dataset_reader._token_indexers, tagger=str(tmp_path / "rules"))
        writer = DependencyGraphPredictor(archive.model, reader, output_format="conllu")
        output = writer.predict("Poet")
        (sentence,) = parse_conllu(io.StringIO(output["conllu"]), "out")
        assert (sentence.lemmas, sentence.pos_tags, sentence.tags) == (["poet"], ["NOUN"], ["NN"])


def test_tokens_without_a_place_in_the_text():
    """Of them nothing is known of blanks."""
    sentence = Sentence.from_text("a b", [Token("a"), Token("b")])
    assert sentence.comments == [] and sentence.misc == ["_", "_"]
