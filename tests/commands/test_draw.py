"""`allennlp draw`: from what `allennlp predict` wrote to pages and pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional
from unittest import mock
from xml.etree import ElementTree

import pytest
from allennlp.commands import main
from allennlp.common.checks import ConfigurationError
from allennlp.models import load_archive
from allennlp.predictors import Predictor

from spigot_allennlp.commands.draw import draw as draw_predictions
from tests.conftest import FIXTURES

ARCHIVE = FIXTURES / "models" / "syntactic_parser.tar.gz"
GRAPH = {
    "sentence_id": "a",
    "words": ["Anna", "<script>alert(1)</script>", "&", '"cook"'],
    "heads": [2, 0, 4, 2],
    "deprels": ["nsubj", "root", "cc</style>", "conj"],
    "tops": [2],
    "arcs": [
        {"dependent": 1, "head": 2, "label": "ARG1", "probability": 0.9},
        {"dependent": 1, "head": 4, "label": "ARG1", "probability": 0.8},
    ],
}
RIGHT = {**GRAPH, "heads": [2, 0, 2, 2], "arcs": [{"dependent": 1, "head": 2, "label": "ARG2"}], "tops": [1, 2]}
SENTIMENT = {
    "words": ["good", "film"],
    "label": "0",
    "probabilities": {"0": 0.75, "1": 0.25},
    "heads": [2, 0],
}
PAIR = {
    "premise_words": ["A", "cook", "slept"],
    "hypothesis_words": ["Nobody", "slept"],
    "premise_heads": [2, 3, 0],
    "hypothesis_heads": [2, 0],
    "label": "contradiction",
    "probabilities": {"contradiction": 0.5, "neutral": 0.5},
}


def write(path: Path, *lines: Dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def draw(predictions: Path, output: Path, gold: Optional[Path] = None, reader: Optional[str] = None) -> str:
    """Run the command with its arguments; what is on the page."""
    draw_predictions(str(predictions), str(output), None if gold is None else str(gold), reader)
    return output.read_text(encoding="utf-8") if output.is_file() else ""


def count(page: str, status: str) -> int:
    return page.count(f'class="displacy-arrow {status}"')


@pytest.fixture(scope="module")
def predicted(tmp_path_factory) -> Path:
    """Eight sentences with gold trees, and what the parser in the fixtures makes of them."""
    directory = tmp_path_factory.mktemp("predicted")
    blocks = (FIXTURES / "graphs" / "dev.conllu").read_text().split("\n\n")[:8]
    (directory / "gold.conllu").write_text("\n\n".join(blocks) + "\n\n")
    predictor = Predictor.from_archive(load_archive(ARCHIVE))
    instances = list(predictor._dataset_reader.read(str(directory / "gold.conllu")))
    write(directory / "predictions.jsonl", *predictor.predict_batch_instance(instances))
    return directory


def test_on_the_command_line_beside_gold(predicted, tmp_path):
    """In a process with other hashes of strings, which draws the same."""
    predictions, gold = predicted / "predictions.jsonl", predicted / "gold.conllu"
    done = subprocess.run(
        [sys.executable, "-m", "spigot_allennlp", "draw", predictions, "--gold", gold, "-o", "page.html"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == draw(predictions, tmp_path / "again.html", gold)

    outputs = [json.loads(line) for line in predictions.read_text().splitlines()]
    words = sum(len(output["words"]) for output in outputs)
    assert count(page, "correct") + count(page, "mislabelled") + count(page, "spurious") == words
    # Every word has one head on either side.
    assert count(page, "spurious") == count(page, "missed") > 0
    assert page.count("<section") == 8
    assert all(output["sentence_id"] in page for output in outputs)


def test_help(capsys):
    with mock.patch.object(sys, "argv", ["allennlp", "draw", "--help"]), pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "a directory for an SVG of each sentence" in text and "--gold-reader" in text


def test_without_gold(tmp_path):
    page = draw(write(tmp_path / "p.jsonl", GRAPH, SENTIMENT, PAIR), tmp_path / "new" / "page.html")
    # 4 + 2 + 3 + 2 words with a head each, two arcs and a top node.
    assert count(page, "predicted") == 14
    assert page.count("<svg") == 4
    assert '<b class="right">contradiction</b> (0.50)' in page and "premise" in page
    # Nothing to switch between.
    assert "<input" not in page


def test_words_are_no_markup(tmp_path):
    odd = {**GRAPH, "label": "<i>", "sentence_id": "<u>\ud800"}
    page = draw(write(tmp_path / "p<b>.jsonl", odd), tmp_path / "page.html")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for markup in ("<script", "<b>.jsonl", "<i>", "<u>", "cc</style>"):
        assert markup not in page
    assert page.count("</style>") == page.count("<style>") == 2
    # The browser itself is told to run and fetch nothing.
    assert "default-src 'none'" in page and "http-equiv" in page
    for reference in ("src=", "href=", "url(", "@import"):
        assert reference not in page


def test_an_svg_of_each_sentence(tmp_path):
    draw(write(tmp_path / "p.jsonl", GRAPH, PAIR), tmp_path / "pictures")
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["1.svg", "hypothesis_2.svg", "premise_2.svg"]
    for name in names:
        assert ElementTree.parse(tmp_path / "pictures" / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_two_models_beside_each_other(tmp_path):
    other = write(tmp_path / "other.jsonl", {**RIGHT, "label": "1"})
    page = draw(write(tmp_path / "p.jsonl", {**GRAPH, "label": "0"}), tmp_path / "page.html", other)
    # Of the tree: 3 right, one head wrong. Of the graph: one top right and one missed, one label wrong, one too many.
    found = {status: count(page, status) for status in ("correct", "mislabelled", "spurious", "missed")}
    assert found == {"correct": 4, "mislabelled": 1, "spurious": 2, "missed": 2}
    assert page.count('<input type="radio"') == 3
    assert '<b class="wrong">0</b>, gold <b>1</b>' in page


def test_gold_is_found_by_its_id(tmp_path):
    second = {**RIGHT, "sentence_id": "b", "words": ["x", "y", "z", "w"]}
    other = write(tmp_path / "other.jsonl", second, RIGHT)
    assert count(draw(write(tmp_path / "p.jsonl", GRAPH), tmp_path / "page.html", other), "correct") == 4


def test_a_reader_for_gold(tmp_path):
    (tmp_path / "gold.txt").write_text("1\tgood film\n")
    reader = '{"type": "sst_trees", "granularity": "2-class"}'
    page = draw(write(tmp_path / "p.jsonl", SENTIMENT), tmp_path / "page.html", tmp_path / "gold.txt", reader)
    assert '<b class="wrong">0</b> (0.75), gold <b>1</b>' in page
    assert "probability of the right class 0.250" in page


DAMAGED: List[Any] = [
    ('{"words": ["a"', "is not JSON"),
    ("[1]", "expected an object with the key 'words'"),
    ('{"tokens": ["a"]}', "expected an object with the key 'words'"),
    ('{"words": [["a"], ["b"]]}', '\'words\' is [["a"], ["b"]]; expected a list of words (one sentence on each line)'),
    ('{"words": []}', "'words' is []"),
    ('{"words": ["a", "b"], "heads": [0]}', "'heads' is [0]; expected a list of 2 numbers from -1 to 2"),
    ('{"words": ["a", "b"], "heads": [0, 3]}', "'heads' is [0, 3]"),
    ('{"words": ["a", "b"], "heads": [0, 1.0]}', "'heads' is [0, 1.0]"),
    ('{"words": ["a", "b"], "heads": [0, true]}', "'heads' is [0, true]"),
    ('{"words": ["a", "b"], "heads": [0, 2]}', "word 2 is its own head"),
    ('{"words": ["a", "b"], "heads": [0, 1], "deprels": ["x"]}', "'deprels' is [\"x\"]; expected a list of 2 names"),
    ('{"words": ["a", "b"], "arcs": [{"dependent": 1, "head": 2}]}', '\'arcs\' is [{"dependent": 1, "head": 2}]'),
    ('{"words": ["a", "b"], "arcs": [{"dependent": 1, "head": 3, "label": "x"}]}', "from 1 to 2, and 'label'"),
    ('{"words": ["a", "b"], "arcs": [{"dependent": 2, "head": 2, "label": "x"}]}', "no graph can have the arc 2 -> 2"),
    ('{"words": ["a", "b"], "arcs": [], "tops": [0]}', "'tops' is [0]; expected a list of numbers from 1 to 2"),
    ('{"words": ["a"], "label": ["x"]}', "'label' is [\"x\"]; expected a name"),
    ('{"words": ["a"], "probabilities": {"x": "y"}}', '\'probabilities\' is {"x": "y"}; expected an object of numbers'),
]


@pytest.mark.parametrize("line, message", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"words": ["fine"]}}\n\n{line}\n')
    with pytest.raises(ConfigurationError) as error:
        draw(path, tmp_path / "page.html")
    assert str(error.value).startswith(f"{path}:3: ")
    assert message in str(error.value)
    assert not (tmp_path / "page.html").exists()


class TestRefused:
    def refused(self, tmp_path: Path, *gold: Any, output: str = "page.html") -> str:
        with pytest.raises(ConfigurationError) as error:
            draw(write(tmp_path / "p.jsonl", GRAPH), tmp_path / output, *gold)
        return str(error.value)

    def test_no_predictions(self, tmp_path):
        (tmp_path / "empty.jsonl").write_text("\n")
        with pytest.raises(ConfigurationError, match="empty.jsonl: the file holds no predictions"):
            draw(tmp_path / "empty.jsonl", tmp_path / "page.html")
        with pytest.raises(ConfigurationError, match="missing.jsonl: there is no such file"):
            draw(tmp_path / "missing.jsonl", tmp_path / "page.html")

    def test_another_output(self, tmp_path):
        message = self.refused(tmp_path, output="page.pdf")
        assert "page.pdf' ends in '.pdf'; valid: a file *.html, or a directory" in message

    def test_gold_of_other_words(self, tmp_path):
        other = write(tmp_path / "gold.jsonl", {**RIGHT, "words": ["Bill", "and", "a", "cook"]})
        assert "sentence 1 of" in self.refused(tmp_path, other)

    def test_gold_of_other_sentences(self, tmp_path):
        other = write(tmp_path / "gold.jsonl", {**RIGHT, "sentence_id": "z"})
        assert "has the sentence 'a', which" in self.refused(tmp_path, other)
        nameless = {name: value for name, value in RIGHT.items() if name != "sentence_id"}
        other = write(tmp_path / "gold.jsonl", nameless, nameless)
        assert "p.jsonl has 1 sentences," in self.refused(tmp_path, other)

    def test_gold_of_an_unknown_kind(self, tmp_path):
        assert "cannot tell what" in self.refused(tmp_path, tmp_path / "gold.txt")

    @pytest.mark.parametrize("reader, message", [("{", "is not JSON"), ("3", 'valid: an object such as {"type"')])
    def test_a_damaged_reader(self, tmp_path, reader, message):
        assert message in self.refused(tmp_path, tmp_path / "gold.txt", reader)

    def test_a_reader_of_nothing(self, tmp_path):
        assert "--gold, which is not given" in self.refused(tmp_path, None, '{"type": "sdp"}')


def test_a_message_instead_of_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["allennlp", "draw", "missing.jsonl", "-o", str(tmp_path / "page.html")])
    with pytest.raises(SystemExit, match=r"^error: missing\.jsonl: there is no such file"):
        main()
