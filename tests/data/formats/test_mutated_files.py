"""
Files with something wrong in them, made from right ones: a reader reads all of it or refuses it with an error that
names the file, and never loses anything without a word. So do predictors with what they are given.
"""

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from allennlp.common.checks import ConfigurationError
from allennlp.data import Instance
from allennlp.models.archival import load_archive
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.data import (
    ConlluGraphsDatasetReader,
    SdpDatasetReader,
    Sentence,
    SnliPairsDatasetReader,
    SstTreesDatasetReader,
    parse_conllu,
    parse_sdp,
    write_conllu,
    write_sdp,
)
from spigot_allennlp.data.formats.sst import unescape
from spigot_allennlp.predictors import DependencyGraphPredictor
from tests.conftest import FIXTURES

CONLLU = """\
# sent_id = a
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVB\tMood=Ind\t3\taux\t3:aux\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t3:advmod\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t0:root\t_

# sent_id = b
1\tAnna\tAnna\tPROPN\tNNP\t_\t2\tnsubj\t2:nsubj|4:nsubj\t_
2\tsaw\tsee\tVERB\tVBD\t_\t0\troot\t0:root|4:conj>x\t_
3\tand\tand\tCCONJ\tCC\t_\t4\tcc\t3.1:cc\t_
3.1\tthen\tthen\tADV\tRB\t_\t_\t_\t4:advmod|0:x\t_
4\tleft\tleave\tVERB\tVBD\t_\t2\tconj\t2:conj:and\tSpaceAfter=No

"""
SDP = """\
#SDP 2015
#20001001
1\tPierre\tPierre\tNNP\t-\t+\tnamed:x-c\t_\t_
2\tjoins\tjoin\tVBZ\t+\t+\tv:e-i-p\tARG1\t_
3\tit\tit\tPRP\t-\t-\tpron:x\t_\tARG2

#20001002
1\tStop\tstop\tVB\t+\t-\tv:e-i\n
"""
AUGMENTED = """\
#1
1\tHe\the\tPRP\t2\tsubj\t-\t-\t_\tARG1\t_
2\truns\trun\tVBZ\t0\troot\t+\t+\t_\t_\t_
3\tfast\tfast\tRB\t2\tadv\t-\t+\t_\t_\t_

"""
TREES = "(3 (2 It) (4 (2 's) (3 lovely)))\n(1 (2 -LRB-) (0 awful))\n(2 so)\n"
TABBED = "3\tIt 's lovely\n\n0\tawful -LRB- really -RRB-\n"
JSON = '{"label": 1, "sentence": "It \'s lovely"}\n{"label": "0", "tokens": ["a", "b\\u00e9"]}\n'
SNLI = (
    '{"gold_label": "neutral", "sentence1": "Dogs run.", "sentence2": "Cats don\'t run.", "pairID": "1"}\n'
    '{"gold_label": "-", "sentence1": "A", "sentence2": "B"}\n'
    '{"gold_label": "entailment", "sentence1": "It rains.", "sentence2": "It\\u2019s wet."}\n'
)
TEXT = 'Dogs bark.\n{"sentence": "It\'s Anna\\u2019s dog."}\n{"tokens": ["a", "b", "{"]}\n\n{ braces } in text\n'

# What tends to be wrong: separators and brackets, numbers, other alphabets' digits and spaces, characters that take
# their meaning from others, what is no UTF-8, what formats and JSON make much of.
PIECES = [
    *"\t \n \r\n \n\n # _ | : . - > + * / \\ ( ) { } [ ] \" ' , 0 1 2 9 5-6 3.1 0:root -1".encode().split(b" "),
    *" ~\u0663~\u00a0~\u3000~\u2028~\x85~\x1c~\x0b~\ufeff~\u200b~e\u0301".encode().split(b"~"),
    *(b"\x00", b"\xff", b"\xc3", b""),
    *(b"999999999999999999999", b"1" * 5000, b"[" * 3000, b"\\ud800", b"\\u0000", b"null", b"NaN", b"true"),
    *(b'"label"', b'"tokens": []', b'"gold_label": 3', b"# sent_id = a", b"# graph = empty", b"#SDP 2014", b"-LRB-"),
]

MUTATION = st.tuples(
    st.sampled_from(["replace", "insert", "delete", "double line", "delete line", "swap lines", "cut", "column"]),
    st.floats(0.0, 1.0, exclude_max=True),
    st.floats(0.0, 1.0, exclude_max=True),
    st.sampled_from(PIECES),
)
MUTATIONS = st.lists(MUTATION, min_size=1, max_size=4)


def mutated(text: str, mutations: list[tuple[str, float, float, bytes]]) -> bytes:
    content = text.encode()
    for kind, place, other, piece in mutations:
        at = int(place * (len(content) + 1))
        lines = content.split(b"\n")
        line, second = int(place * len(lines)), int(other * len(lines))
        if kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "replace":
            content = content[:at] + piece + content[at + max(len(piece), 1) :]
        elif kind == "delete":
            content = content[:at] + content[at + 1 + int(8 * other) :]
        elif kind == "cut":
            content = content[:at]
        else:
            if kind == "double line":
                lines.insert(second, lines[line])
            elif kind == "delete line":
                del lines[line]
            elif kind == "swap lines":
                lines[line], lines[second] = lines[second], lines[line]
            else:
                columns = lines[line].split(b"\t")
                columns[int(other * len(columns))] = piece
                lines[line] = b"\t".join(columns)
            content = b"\n".join(lines)
    return content


@contextmanager
def seconds(limit: int) -> Iterator[None]:
    """What takes longer hangs."""

    def stop(*args: Any) -> None:
        raise AssertionError(f"took longer than {limit} seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def lines_of(content: bytes) -> list[str]:
    """The lines of a file that has something in them, as Python's text files have them."""
    text = content.decode("utf-8-sig")
    return [line for line in re.split("\r\n|\r|\n", text) if line and not line.isspace()]


def blocks_of(content: bytes) -> list[list[str]]:
    """The lines between blank ones, without headers."""
    blocks: list[list[str]] = [[]]
    for line in re.split("\r\n|\r|\n", content.decode("utf-8-sig")):
        if not line or line.isspace():
            blocks.append([])
        elif not re.fullmatch(r"#SDP \d{4}\s*", line) or blocks[-1]:
            blocks[-1].append(line)
    return [block for block in blocks if block]


def check_conllu(content: bytes, instances: list[Instance]) -> None:
    blocks = blocks_of(content)
    assert len(instances) == len(blocks)
    for block, instance in zip(blocks, instances):
        graph = instance["metadata"]["graph"]
        rows = [line.split("\t") for line in block if line[0] != "#"]
        words = [row for row in rows if "-" not in row[0] and "." not in row[0]]
        assert graph.words == [row[1] for row in words] == [str(token) for token in instance["tokens"].tokens]
        assert len(graph.multiword_tokens) == sum("-" in row[0] for row in rows)
        assert graph.heads is None or list(map(str, graph.heads)) == [row[6] for row in words]
        if graph.arcs is not None and not any("." in row[0] for row in rows):
            edges = sorted(
                (int(row[0]), *edge.split(":", 1)) for row in words for edge in row[8].split("|") if row[8] != "_"
            )
            kept = [(d, str(h), part) for (d, h), label in graph.arcs.items() for part in label.split("|")]
            kept += [(d, "0", part) for d, label in graph.tops.items() for part in label.split("|")]
            assert sorted(kept) == edges
        assert list(parse_conllu(write_conllu(graph).split("\n"), "again")) == [graph]


def check_sdp(content: bytes, instances: list[Instance]) -> None:
    blocks = blocks_of(content)
    assert len(instances) == len(blocks)
    for block, instance in zip(blocks, instances):
        graph: Sentence = instance["metadata"]["graph"]
        rows = [line.split("\t") for line in block if line[0] != "#"]
        assert graph.words == [row[1] for row in rows] == [str(token) for token in instance["tokens"].tokens]
        if graph.arcs is None:
            # As in files that are not annotated.
            assert {len(row) for row in rows} == {4}
            continue
        assert 0 <= len(graph.predicates) <= len(rows)
        arguments = [row[len(row) - len(graph.predicates) :] for row in rows]
        assert len(graph.arcs) == sum(cell != "_" for row in arguments for cell in row)
        (again,) = parse_sdp(write_sdp(graph).split("\n"), "again")
        assert again.arcs == graph.arcs and again.tops == graph.tops and again.words == graph.words
        assert again.heads == graph.heads and again.sentence_id == graph.sentence_id


def check_sst(content: bytes, instances: list[Instance]) -> None:
    lines = [line for line in lines_of(content) if line.strip(" \t\f\v")]
    assert len(instances) == len(lines)
    for line, instance in zip(lines, instances):
        words = [str(token) for token in instance["tokens"].tokens]
        if line.lstrip(" \t\f\v").startswith("("):
            assert len(words) == len(re.findall(r"[^() \t\f\v][ \t\f\v]*\)", line))
        elif not line.lstrip(" \t\f\v").startswith("{"):
            # Text, which is tokenized.
            assert "".join(words) == "".join(unescape(line.partition("\t")[2]).split())
        assert line.count("\t") < 2 or line[0] in "({"
        assert "label" not in instance.fields or instance["label"].label in "01234"


def check_snli(content: bytes, instances: list[Instance]) -> None:
    entries = [entry for entry in map(json.loads, lines_of(content)) if entry.get("gold_label") != "-"]
    assert len(instances) == len(entries)
    for entry, instance in zip(entries, instances):
        assert "label" not in instance.fields or instance["label"].label == entry["gold_label"]
        assert ("label" in instance.fields) == ("gold_label" in entry)
        for key, name in (("sentence1", "premise"), ("sentence2", "hypothesis")):
            assert "".join(map(str, instance[name].tokens)) == "".join(entry[key].split())


class Case(NamedTuple):
    text: str
    reader: Callable[[], Any]
    check: Callable[[bytes, list[Instance]], None]


CASES = {
    "CoNLL-U": Case(CONLLU, ConlluGraphsDatasetReader, check_conllu),
    "SDP": Case(SDP, SdpDatasetReader, check_sdp),
    "augmented SDP": Case(AUGMENTED, SdpDatasetReader, check_sdp),
    "SST trees": Case(TREES, SstTreesDatasetReader, check_sst),
    "SST tabbed": Case(TABBED, SstTreesDatasetReader, check_sst),
    "SST JSON": Case(JSON, SstTreesDatasetReader, check_sst),
    "SNLI": Case(SNLI, SnliPairsDatasetReader, check_snli),
}


def read_mutated(name: str, path: Path, examples: int) -> None:
    case = CASES[name]
    reader = case.reader()
    counts = {"read": 0, "refused": 0}

    @settings(max_examples=examples)
    @given(MUTATIONS)
    def run(mutations: list[tuple[str, float, float, bytes]]) -> None:
        content = mutated(case.text, mutations)
        path.write_bytes(content)
        with seconds(20):
            try:
                instances = list(reader.read(str(path)))
            except ConfigurationError as error:
                assert str(error).startswith(f"{path}:")
                counts["refused"] += 1
                return
        counts["read"] += 1
        case.check(content, instances)

    run()
    # Or the mutations would test nothing.
    assert min(counts.values()) > examples / 50, counts


def predict_mutated(predictor: DependencyGraphPredictor, path: Path, examples: int) -> None:
    counts = {"taken": 0, "refused": 0}

    @settings(max_examples=examples)
    @given(MUTATIONS)
    def run(mutations: list[tuple[str, float, float, bytes]]) -> None:
        for line in mutated(TEXT, mutations).decode("utf-8", "surrogateescape").split("\n"):
            if not line or line.isspace():
                continue
            with seconds(20):
                try:
                    entry = predictor.load_line(line)
                    instance = predictor._json_to_instance(entry)
                    predictor.dump_line({"words": instance["metadata"]["words"]}).encode("utf-8")
                except ConfigurationError as error:
                    too_long = r"the sentence has \d{4,} words, .* it begins with "
                    assert re.search(f"^(nothing to parse in |input line |{too_long})", str(error))
                    counts["refused"] += 1
                    continue
            counts["taken"] += 1
            words = instance["metadata"]["words"]
            text = entry.get("sentence")
            assert words == entry["tokens"] if text is None else "".join(words) == "".join(text.split())

    run()
    assert min(counts.values()) > examples / 50, counts


@pytest.fixture(scope="module")
def predictor() -> DependencyGraphPredictor:
    archive = load_archive(FIXTURES / "models" / "syntactic_parser.tar.gz")
    return DependencyGraphPredictor(archive.model, archive.dataset_reader)


@pytest.mark.parametrize("name", CASES)
def test_files(name: str, tmp_path: Path):
    read_mutated(name, tmp_path / "file", examples=250)


def test_predictions(predictor: DependencyGraphPredictor, tmp_path: Path):
    predict_mutated(predictor, tmp_path, examples=250)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_many_files(name: str, tmp_path: Path):
    read_mutated(name, tmp_path / "file", examples=12_500)


@pytest.mark.slow
def test_many_predictions(predictor: DependencyGraphPredictor, tmp_path: Path):
    predict_mutated(predictor, tmp_path, examples=12_500)
