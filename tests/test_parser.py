"""Parsers by name, as Python functions, and as components of spaCy pipelines."""

import configparser
import importlib
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import spacy
import torch
from allennlp.common.checks import ConfigurationError
from allennlp.models import load_archive

import spigot_allennlp
from spigot_allennlp import pretrained
from spigot_allennlp.data import Sentence, parse_conllu
from spigot_allennlp.parser import Parser
from spigot_allennlp.predictors import DependencyGraphPredictor
from spigot_allennlp.spacy_component import GraphEdge, SpigotParser, make_spigot_parser
from tests.conftest import FIXTURES, PROJECT_ROOT

ARCHIVE = FIXTURES / "models" / "semantic_parser.tar.gz"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The archive of a parser that ships with the package as `small`."""
    archive = tmp_path / "pretrained" / "small" / "model.tar.gz"
    archive.parent.mkdir(parents=True)
    shutil.copy(ARCHIVE, archive)
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path / "pretrained")
    return archive


def test_names(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert pretrained.pretrained_names() == ["small"]
    assert pretrained.archive_file("small") == str(small)
    for other in (str(ARCHIVE), "model.tar.gz", "runs/large", "https://example.org/model.tar.gz", ARCHIVE):
        assert pretrained.archive_file(other) == other
    with pytest.raises(ConfigurationError, match=r"'large' is neither .* valid: .* one of 'small'$"):
        load_archive("large")
    # What is in the working directory comes first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert pretrained.archive_file("small") == "small"


def test_load_by_name(small: Path):
    words = ["The", "company", "fell", "."]
    assert spigot_allennlp.load("small").parse_words([words]) == spigot_allennlp.load(ARCHIVE).parse_words([words])


def test_damaged(small: Path):
    small.write_bytes(small.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match=r"small.model\.tar\.gz: cannot load the archive: it is damaged"):
        spigot_allennlp.load("small")


def test_not_a_parser(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spigot_allennlp.parser.DependencyGraphPredictor", Parser)
    with pytest.raises(ConfigurationError, match="holds a model of type .*; valid: a parser"):
        spigot_allennlp.load(ARCHIVE)


@pytest.fixture(scope="module")
def parser() -> Parser:
    return spigot_allennlp.load(ARCHIVE, batch_size=2)


def test_text_is_split(parser: Parser):
    text = "The company fell. It  rose.\n\nNew one\nin two lines"
    words = [sentence.words for sentence in parser(text)]
    assert words == [
        ["The", "company", "fell", "."],
        ["It", "rose", "."],
        ["New", "one", "in", "two", "lines"],
    ]
    assert parser("") == parser(" \n\n ") == []


def test_order_and_batches_change_nothing(parser: Parser):
    sentences = [["a", "b", "c"], ["a"], ["The", "company", "rose", "."], ["b", "a"], ["c"]]
    together = parser.parse_words(sentences)
    assert [sentence.words for sentence in together] == sentences
    assert together == [parser.parse_words([words])[0] for words in sentences]


@pytest.mark.parametrize("words", [[], ["a", ""], "text"])
def test_sentences_without_words(parser: Parser, words):
    with pytest.raises(ConfigurationError, match="valid: a list of one or more non-empty words"):
        parser.parse_words([words])


class Fixed(Parser):
    """Trees and graphs of a file, for the sentences that are asked for."""

    def __init__(self, conllu: str) -> None:
        self.sentences = {tuple(sentence.words): sentence for sentence in parse_conllu(conllu.splitlines(True), "-")}

    def parse_words(self, sentences) -> list[Sentence]:
        return [self.sentences[tuple(words)] for words in sentences]


ROW = "{}\t{}\t_\t_\t_\t_\t{}\t{}\t{}\t_\n"
CONLLU = (
    ROW.format(1, "She", 2, "nsubj", "2:nsubj|4:nsubj:xsubj")
    + ROW.format(2, "tried", 0, "root", "0:root")
    + ROW.format(3, "to", 4, "mark", "4:mark")
    + ROW.format(4, "leave", 2, "xcomp", "2:xcomp")
    + ROW.format(5, ".", 2, "punct", "2:punct")
    + "\n"
    + ROW.format(1, "No", 0, "root", "0:root")
    + ROW.format(2, "!", 1, "punct", "1:punct")
    + "\n"
)


def test_spacy_component():
    nlp = spacy.blank("en")
    component = SpigotParser(Fixed(CONLLU))
    doc = component(nlp.make_doc(" She tried  to leave. \n No!"))
    words = [token for token in doc if not token.is_space]
    assert [token.text for token in words] == ["She", "tried", "to", "leave", ".", "No", "!"]
    assert [token.head.text for token in words] == ["tried", "tried", "leave", "tried", "tried", "No", "No"]
    assert [token.dep_ for token in words] == ["nsubj", "ROOT", "mark", "xcomp", "punct", "ROOT", "punct"]
    assert [[token.text for token in span if not token.is_space] for span in doc.sents] == [
        ["She", "tried", "to", "leave", "."],
        ["No", "!"],
    ]
    # The second root is not the first one's.
    assert [span.root.text for span in doc.sents] == ["tried", "No"]
    she, tried, _, leave, *_ = words
    assert she._.graph_heads == [(tried, "nsubj"), (leave, "nsubj:xsubj")]
    assert tried._.graph_heads == [(None, "root")]
    assert GraphEdge(leave.i, she.i, "nsubj:xsubj") in doc._.dependency_graph
    assert len(doc._.dependency_graph) == 8


def test_spacy_component_keeps_sentences():
    nlp = spacy.blank("en")
    doc = spacy.tokens.Doc(nlp.vocab, ["No", "!", "No", "!"], sent_starts=[True, False, True, False])
    assert [span.text for span in SpigotParser(Fixed(CONLLU))(doc).sents] == ["No !", "No !"]


def test_spacy_pipeline(parser: Parser):
    nlp = spacy.blank("en")
    nlp.add_pipe("spigot_parser", config={"model": str(ARCHIVE)})
    texts = ["The company fell. It rose.", "", " ", "One"]
    docs = list(nlp.pipe(texts))
    assert [doc.text for doc in docs] == texts
    for doc in docs:
        # The model of the fixtures has no tree of a single root: it gives graphs alone.
        assert not any(token.dep_ for token in doc)
        edges = [
            (edge.dependent, edge.label)
            for span in doc.sents
            for edge in doc._.dependency_graph
            if edge.dependent in range(span.start, span.end)
        ]
        arcs = [
            (span.start + dependent - 1, label)
            for span, sentence in zip(doc.sents, parser(doc.text))
            for dependent, label in [
                *sentence.tops.items(),
                *((dependent, label) for (dependent, _), label in sentence.arcs.items()),
            ]
        ]
        assert sorted(edges) == sorted(arcs)


def test_parse_keeps_annotation(parser: Parser):
    predictor = parser.predictor
    assert isinstance(predictor, DependencyGraphPredictor)
    sentence = Sentence(words=["It", "fell"], lemmas=["it", "fall"], sentence_id="7")
    (parsed,) = predictor.parse([sentence])
    assert (parsed.lemmas, parsed.sentence_id) == (["it", "fall"], "7")
    assert parsed.arcs is not None
    assert torch.is_grad_enabled()


def test_spacy_finds_the_component():
    setup = configparser.ConfigParser()
    setup.read(PROJECT_ROOT / "setup.cfg")
    name, _, factory = setup["options.entry_points"]["spacy_factories"].strip().partition(" = ")
    module, _, function = factory.partition(":")
    assert name == "spigot_parser" and importlib.import_module(module).__dict__[function] is make_spigot_parser


def test_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser: Parser):
    script = str(PROJECT_ROOT / "scripts" / "pack_parser.py")
    packed = [tmp_path / name for name in ("full.tar.gz", "small.tar.gz", "again.tar.gz")]
    for path, bits in zip(packed, (10, 3, 3)):
        monkeypatch.setattr(sys, "argv", [script, str(ARCHIVE), str(path), "--mantissa-bits", str(bits)])
        runpy.run_path(script, run_name="__main__")
    full, small, again = (path.read_bytes() for path in packed)
    assert len(small) < 0.9 * len(full) and small == again
    words = ["The", "company", "tried", "to", "buy", "shares", "."]
    assert spigot_allennlp.load(packed[0]).parse_words([words]) == parser.parse_words([words])
    before, after = (load_archive(path).model.state_dict() for path in (ARCHIVE, packed[1]))
    assert before.keys() == after.keys()
    for name, value in before.items():
        # Half a step of three bits, relative to the value; the smallest numbers of half precision are coarser.
        assert after[name].dtype == value.dtype
        torch.testing.assert_close(after[name], value, rtol=2**-4, atol=1e-7)


@pytest.fixture(scope="module")
def english() -> Parser:
    return spigot_allennlp.load("en_ewt")


def test_english(english: Parser):
    first, second = english("She tried to leave. The books that he wrote sold well.")
    assert first.heads == [2, 0, 4, 2, 2]
    assert first.deprels == ["nsubj", "root", "mark", "xcomp", "punct"]
    # The subject of both verbs, in the graph only.
    assert (first.arcs[1, 2], first.arcs[1, 4]) == ("nsubj", "nsubj:xsubj")
    assert second.arcs[5, 2] == "acl:relcl"


def test_english_graphs_are_valid(english: Parser):
    lines = (FIXTURES / "text" / "sentences.txt").read_text(encoding="utf-8")
    # No grammar at all.
    noise = [["ζ"], ["."] * 30, "a b c d e of of of and and".split(), ["x" * 200, "\u200b", "1e9"]]
    for sentence in [*english(lines), *english.parse_words(noise)]:
        assert sentence.heads.count(0) == 1
        reached = set(sentence.tops)
        while True:
            more = {dependent for dependent, head in sentence.arcs if head in reached} - reached
            if not more:
                break
            reached |= more
        assert reached == set(range(1, len(sentence) + 1))


def test_english_in_spacy():
    nlp = spacy.blank("en")
    nlp.add_pipe("spigot_parser")
    doc = nlp("She tried to leave. Nobody saw her.")
    assert [(token.text, token.dep_, token.head.text) for token in doc][:2] == [
        ("She", "nsubj", "tried"),
        ("tried", "ROOT", "tried"),
    ]
    assert [span.root.text for span in doc.sents] == ["tried", "saw"]


@pytest.mark.parametrize("name", pretrained.pretrained_names())
def test_what_ships(name: str):
    archive = Path(pretrained.archive_file(name))
    assert archive.stat().st_size <= 16 * 2**20
    card = (archive.parent / "README.md").read_text(encoding="utf-8")
    # Where the weights come from, and under which conditions.
    assert "## Limits" in card and "allennlp train" in card and "CC BY-SA 4.0" in card
    assert "Attribution" in (archive.parent / "LICENSE.txt").read_text(encoding="utf-8")
