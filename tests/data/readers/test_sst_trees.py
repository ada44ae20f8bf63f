import json
import re
from collections import Counter
from pathlib import Path
from typing import List, Tuple

import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, Token, Vocabulary
from allennlp.data.dataset_readers.dataset_reader import WorkerInfo
from hypothesis import given
from hypothesis import strategies as st

from spigot_allennlp.data import SstTreesDatasetReader, parse_sst
from tests.conftest import FIXTURES

TREES = """\
(4 (2 It) (4 (2 's) (4 (3 lovely) (2 film))))
(2 (2 So) (2 so))
(0 (1 bad) (0 awful))
"""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def content(instances: List[Instance]) -> List[Tuple[str, str]]:
    return [(" ".join(token.text for token in each["tokens"]), each["label"].label) for each in instances]


def read(path: str, **keys) -> List[Tuple[str, str]]:
    return content(list(SstTreesDatasetReader(**keys).read(path)))


class TestTrees:
    @pytest.mark.parametrize("granularity", ["5-class", 5, "5"])
    def test_five_classes(self, tmp_path, granularity):
        path = write(tmp_path / "x.txt", TREES)
        expected = [("It 's lovely film", "4"), ("So so", "2"), ("bad awful", "0")]
        assert read(path, granularity=granularity) == expected

    def test_three_classes(self, tmp_path):
        path = write(tmp_path / "x.txt", TREES)
        assert [label for _, label in read(path, granularity="3-class")] == ["2", "1", "0"]

    def test_two_classes_drop_the_neutral(self, tmp_path):
        path = write(tmp_path / "x.txt", TREES)
        assert read(path, granularity="2-class") == [("It 's lovely film", "1"), ("bad awful", "0")]

    def test_subtrees(self, tmp_path):
        path = write(tmp_path / "x.txt", TREES)
        assert read(path, use_subtrees=True)[:8] == [
            ("It 's lovely film", "4"),
            ("It", "2"),
            ("'s lovely film", "4"),
            ("'s", "2"),
            ("lovely film", "4"),
            ("lovely", "3"),
            ("film", "2"),
            ("So so", "2"),
        ]
        assert read(path, use_subtrees=True, granularity=2) == [
            ("It 's lovely film", "1"),
            ("'s lovely film", "1"),
            ("lovely film", "1"),
            ("lovely", "1"),
            ("bad awful", "0"),
            ("bad", "0"),
            ("awful", "0"),
        ]

    def test_escapes(self):
        line = r"(2 (2 (2 -LRB-) (2 1\/2)) (2 (2 \*\*\*) (2 (2 -RSB-) (2 (2 -lcb-) (2 -LRB-x-RRB-)))))"
        (tree,) = parse_sst([line], "x")
        assert tree.words == ["(", "1/2", "***", "]", "{", "(x)"]

    def test_a_no_break_space_is_part_of_a_word(self):
        (tree,) = parse_sst(["(2 (2 8\u00a01\\/2) (2 (2 a) (2 \u2003)))"], "x")
        assert tree.words == ["8\u00a01/2", "a", "\u2003"]

    def test_any_arity_any_space_any_line_end(self, tmp_path):
        (tmp_path / "x.txt").write_bytes("\ufeff( 3(2 a)\t(2  b )(4 (3 c)))\r\n\r\n(1 d)".encode())
        assert read(str(tmp_path / "x.txt")) == [("a b c", "3"), ("d", "1")]

    def test_deep_trees_need_no_stack(self):
        line = "(2 (2 a) " * 5000 + "(2 b)" + ")" * 5000
        (tree,) = parse_sst([line], "x")
        assert len(tree.words) == 5001 and len(tree.phrases) == 10001

    @given(
        st.recursive(
            st.tuples(st.integers(0, 4), st.sampled_from(["a", "1", "-LRB-", "é"])),
            lambda nodes: st.tuples(st.integers(0, 4), st.lists(nodes, min_size=1, max_size=3)),
        )
    )
    def test_reads_what_was_written(self, tree):
        def written(node):
            label, part = node
            return f"({label} {part if isinstance(part, str) else ' '.join(map(written, part))})"

        def phrases(node, start):
            label, part = node
            if isinstance(part, str):
                return [(start, start + 1, label)]
            found = []
            for child in part:
                found += (inner := phrases(child, start))
                start = inner[0][1]
            return [(found[0][0], start, label), *found]

        (parsed,) = parse_sst([written(tree)], "x")
        assert parsed.phrases == phrases(tree, 0)
        assert len(parsed.words) == parsed.phrases[0][1]


class TestOtherFormats:
    def test_tabbed(self, tmp_path):
        path = write(tmp_path / "x.tsv", "1\tIt 's -LRB- very -RRB- good\n0\tbad\n")
        for granularity in (2, 5):
            assert read(path, granularity=granularity) == [("It 's ( very ) good", "1"), ("bad", "0")]

    def test_json(self, tmp_path):
        lines = [{"label": 3, "sentence": "So good"}, {"tokens": ["very bad", "film"], "label": "0", "id": 7}]
        path = write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)))
        assert read(path) == [("So good", "3"), ("very bad film", "0")]
        assert len(next(iter(parse_sst([json.dumps(lines[1])], "x"))).words) == 2

    def test_subtrees_of_what_has_none(self, tmp_path):
        assert read(write(tmp_path / "x.tsv", "1\ta b\n"), use_subtrees=True) == [("a b", "1")]


REFUSALS = [
    ("(3 (2 a) (2 b)", "brackets do not match: 1 not closed, the last of them at column 1"),
    ("(3 (2 a) (2 b)))", "brackets do not match: that at column 16 closes none"),
    (")(", "brackets do not match: that at column 1 closes none"),
    ("(3 a) (2 b)", "'(' at column 7 is after the end of the tree"),
    ("(3 a) b", "'b' at column 7 is after the end of the tree"),
    ("(5 (2 a) (2 b))", "label '5' at column 2 is out of range; valid: 0 (very negative) to 4"),
    ("(3 (-1 a) (2 b))", "label '-1' at column 5 is out of range"),
    ("(3 (good a) (2 b))", "label 'good' at column 5 is out of range"),
    ("((2 a) (2 b))", "the bracket at column 1 is followed by no label"),
    ("(3 )", "the node at column 1 has no words"),
    ("()", "the node at column 1 has no words"),
    ("(3 (2 a) (2 ))", "the node at column 10 has no words"),
    ("(3 a b)", "unexpected 'b' at column 6"),
    ("(3 (2 a) b)", "unexpected 'b' at column 10"),
    ("(3 a (2 b))", "the bracket at column 6 follows a word"),
    ("3\t", "label '3' has no words after it"),
    ("3", "label '3' has no words after it"),
    ("5\ta b", "label '5' is out of range; valid: 0, 1, 2, 3, 4"),
    ("-1\ta b", "label '-1' is out of range"),
    ("\ta b", "label '' is out of range"),
    ("01\ta b", "label '01' is out of range"),
    ('{"label": 9, "sentence": "a"}', "label 9 is out of range"),
    ('{"label": true, "sentence": "a"}', "label True is out of range"),
    ('{"label": 1.0, "sentence": "a"}', "label 1.0 is out of range"),
    ('{"label": 1, "sentence": " "}', "the line has no words"),
    ('{"label": 1, "tokens": []}', "the line has no words"),
    ('{"label": 1, "tokens": ["a", ""]}', "valid: a list of words"),
    ('{"label": 1, "tokens": "a"}', "valid: a list of words"),
    ('{"label": 1, "sentence": ["a"]}', "valid: a string"),
    ('{"sentence": "a"}', "the key 'label' is missing; found 'sentence'"),
    ('{"label": 1}', "needs either 'sentence' or 'tokens'; found 'label'"),
    ('{"label": 1, "sentence": "a"', "is not JSON"),
    ("a good film", "in no known format; valid: a bracketed tree"),
]


class TestRefusals:
    @pytest.mark.parametrize("line, problem", REFUSALS, ids=[line for line, _ in REFUSALS])
    def test_lines(self, tmp_path, line, problem):
        good = {"(": "(1 a)", ")": "(1 a)", "{": '{"label": 1, "sentence": "a"}'}.get(line[0], "1\ta")
        path = write(tmp_path / "x.txt", f"{good}\n\n{line}\n")
        with pytest.raises(ConfigurationError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}:3: ") and problem in str(error.value)

    def test_labels_of_more_classes(self, tmp_path):
        path = write(tmp_path / "x.tsv", "1\ta\n4\tb\n")
        with pytest.raises(ConfigurationError, match=r"x\.tsv:2: label '4' .*; valid: 0, 1 \(of 2 classes"):
            read(path, granularity=2)

    @pytest.mark.parametrize("second", ["(3 a)", '{"label": 1, "sentence": "a"}', "1\ta"])
    @pytest.mark.parametrize("first", ["(3 a)", '{"label": 1, "sentence": "a"}', "1\ta"])
    def test_mixed_formats(self, tmp_path, first, second):
        path = write(tmp_path / "x.txt", f"{first}\n{second}\n")
        if first == second:
            assert len(read(path)) == 2
            return
        with pytest.raises(ConfigurationError, match=r"x\.txt:2: .*but line 1 is .*must be in one format"):
            read(path)

    def test_no_utf8(self, tmp_path):
        (tmp_path / "x.txt").write_bytes(b"(3 a)\n(3 \xe9)\n")
        with pytest.raises(ConfigurationError, match=r"x\.txt:2: byte 4 of the line is not valid UTF-8"):
            read(str(tmp_path / "x.txt"))

    @pytest.mark.parametrize("text", ["", "\n \t\n"])
    def test_empty_files(self, tmp_path, text):
        with pytest.raises(ConfigurationError, match=r"x\.txt: the file holds no sentences"):
            read(write(tmp_path / "x.txt", text))

    def test_nothing_but_neutral(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"x\.txt: all sentences are neutral"):
            read(write(tmp_path / "x.txt", "(2 a)"), granularity=2)

    def test_no_file(self, tmp_path):
        with pytest.raises(ConfigurationError, match="there is no such file"):
            read(str(tmp_path / "nowhere.txt"))

    @pytest.mark.parametrize("granularity", [4, "4-class", "binary", "2-class-class", True])
    def test_granularity(self, granularity):
        with pytest.raises(ConfigurationError, match="valid: '5-class', '3-class', '2-class', or the number alone"):
            SstTreesDatasetReader(granularity=granularity)

    def test_an_unknown_key(self):
        with pytest.raises(
            ConfigurationError, match="SstTreesDatasetReader has no key 'granularty'; valid: granularity, "
        ):
            DatasetReader.from_params(Params({"type": "sst_trees", "granularty": 2}))


class TestInstances:
    @pytest.mark.parametrize("granularity, expected", [("2-class", 2), (2, 2), ("3-class", 3)])
    def test_from_params(self, tmp_path, granularity, expected):
        params = {"type": "sst_trees", "granularity": granularity, "token_indexers": {"words": {"type": "single_id"}}}
        reader = DatasetReader.from_params(Params(params))
        instances = list(reader.read(write(tmp_path / "x.txt", TREES)))
        assert isinstance(reader, SstTreesDatasetReader) and len(instances) == expected
        assert list(instances[0]["tokens"].token_indexers) == ["words"]
        assert Vocabulary.from_instances(instances).get_vocab_size("labels") == expected
        assert instances[0]["metadata"]["words"] == ["It", "'s", "lovely", "film"]

    def test_from_text(self):
        reader = SstTreesDatasetReader()
        for words in (["so", "good"], [Token("so"), Token("good")], " so  good "):
            instance = reader.text_to_instance(words)
            assert [token.text for token in instance["tokens"]] == ["so", "good"]
            assert instance["metadata"]["words"] == ["so", "good"] and "label" not in instance.fields
        assert reader.text_to_instance("so", label=1)["label"].label == "1"
        for words in ([], " "):
            with pytest.raises(ConfigurationError, match="at least one word"):
                reader.text_to_instance(words)

    def test_workers_share_the_instances(self, tmp_path):
        path = write(tmp_path / "x.txt", TREES)
        expected = read(path, use_subtrees=True)
        found = []
        for worker in (0, 1):
            reader = SstTreesDatasetReader(use_subtrees=True)
            reader._set_worker_info(WorkerInfo(2, worker))
            found.append(content(list(reader.read(path))))
        assert found == [expected[0::2], expected[1::2]]
        assert read(path, use_subtrees=True, max_instances=4) == expected[:4]


def test_fixtures():
    for part, number in (("train", 200), ("dev", 60)):
        path = str(FIXTURES / "sst" / f"{part}.txt")
        assert len(read(path)) == number
        assert {label for _, label in read(path, granularity=2)} == {"0", "1"}


@pytest.mark.parametrize(
    "part, negative, neutral, positive, phrases, words",
    [("train", 3310, 1624, 3610, 318582, 163563), ("dev", 428, 229, 444, 41447, 21274)],
)
def test_the_treebank(shared_data, part, negative, neutral, positive, phrases, words):
    path = shared_data / "sst" / f"{part}.txt"
    if not path.exists():
        pytest.skip(f"no treebank at {path}")
    binary = Counter(label for _, label in read(str(path), granularity="2-class"))
    assert binary == {"0": negative, "1": positive}
    text = path.read_text(encoding="utf-8")
    trees = list(parse_sst(text.splitlines(), str(path), 3))
    assert Counter(tree.phrases[0][2] for tree in trees) == {0: negative, 1: neutral, 2: positive}
    assert sum(len(tree.phrases) for tree in trees) == text.count("(") == phrases
    assert sum(len(tree.words) for tree in trees) == len(re.findall(r"\([0-4] [^()]+\)", text)) == words
    assert not any("LRB" in word or "\\" in word for tree in trees for word in tree.words)
