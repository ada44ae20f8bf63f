import logging

import conllu
import pytest
from allennlp.common.checks import ConfigurationError
from hypothesis import given
from hypothesis import strategies as st

from spigot_allennlp.data import (
    ConlluGraphsDatasetReader,
    Sentence,
    parse_conllu,
    write_conllu,
)
from spigot_allennlp.data.formats.conllu import coarse_label
from tests.data.sentences import damage_is_refused, refused_at, sentences, tabbed


def parse(text: str, **options):
    return list(parse_conllu(tabbed(text).splitlines(True), "file.conllu", **options))


EXAMPLE = """\
# newdoc id = d
# sent_id = d-1
# text = It's here and there
1-2 It's _ _ _ _ _ _ _ SpaceAfter=No
1 It it PRON PRP _ 3 nsubj 3:nsubj|5.1:nsubj _
2 's be AUX VBZ _ 3 cop 3:cop _
3 here here ADV RB _ 0 root 0:root _
4 and and CCONJ CC _ 5 cc 5.1:cc _
5 there there ADV RB Degree=Pos 3 conj 3:conj:and|5.1:advmod:loc _
5.1 is be VERB VBZ _ _ _ 3:conj:and CopyOf=2

# sent_id = d-2
1 Go go VERB VB _ 0 root 0:root _
2 on on ADP RP _ 1 compound:prt 1:compound:prt|0:parataxis _
"""


def test_example():
    first, second = parse(EXAMPLE)
    assert first.sentence_id == "d-1"
    assert first.words == ["It", "'s", "here", "and", "there"]
    assert first.lemmas == ["it", "be", "here", "and", "there"]
    assert first.pos_tags == ["PRON", "AUX", "ADV", "CCONJ", "ADV"]
    assert first.tags == ["PRP", "VBZ", "RB", "CC", "RB"]
    assert first.heads == [3, 3, 0, 5, 3]
    assert first.deprels == ["nsubj", "cop", "root", "cc", "conj"]
    assert first.tops == {3: "root"}
    assert first.arcs == {
        (1, 3): "nsubj|conj:and>nsubj",
        (2, 3): "cop",
        (4, 3): "conj:and>cc",
        (5, 3): "conj:and|conj:and>advmod:loc",
    }
    assert second.line == 12
    assert second.tops == {1: "root", 2: "parataxis"}


def test_dropped_empty_nodes():
    first, _ = parse(EXAMPLE, empty_nodes="drop")
    assert first.arcs == {(1, 3): "nsubj", (2, 3): "cop", (5, 3): "conj:and"}
    assert first.tops == {3: "root"}


def test_coarse_labels():
    first, second = parse(EXAMPLE, labels="coarse")
    assert first.arcs == {
        (1, 3): "nsubj|conj>nsubj",
        (2, 3): "cop",
        (4, 3): "conj>cc",
        (5, 3): "conj|conj>advmod",
    }
    assert first.deprels == ["nsubj", "cop", "root", "cc", "conj"]
    assert second.arcs == {(2, 1): "compound"}


def test_coarse_labels_that_become_equal_are_one():
    (sentence,) = parse(
        "1 a _ _ _ _ _ _ 0:root:x|0:root:y _\n2 b _ _ _ _ _ _ 1:nsubj:pass|1:nsubj _\n", labels="coarse"
    )
    assert sentence.arcs == {(2, 1): "nsubj"}
    assert sentence.tops == {1: "root"}


def test_paths_through_several_empty_nodes():
    # 3 is reached through 1.1 (from ROOT and from 1) and through 1.2 over 1.1; 1.1 and 1.2 form a cycle.
    (sentence,) = parse(
        "1 a _ _ _ _ _ _ 0:root _\n"
        "1.1 x _ _ _ _ _ _ 0:r|1:s|1.2:c _\n"
        "1.2 y _ _ _ _ _ _ 1.1:t _\n"
        "2 b _ _ _ _ _ _ 1:u _\n"
        "3 c _ _ _ _ _ _ 1.2:v _\n"
    )
    assert sentence.tops == {1: "root", 3: "r>t>v"}
    assert sentence.arcs == {(2, 1): "u", (3, 1): "s>t>v"}


def test_a_path_from_a_word_to_itself_is_no_arc_and_warned_of(caplog):
    text = "1 a _ _ _ _ _ _ 0:root|1.1:obj _\n1.1 x _ _ _ _ _ _ 1:acl _\n2 b _ _ _ _ _ _ 1.1:nsubj _\n"
    with caplog.at_level(logging.WARNING):
        (sentence,) = parse(text)
    assert sentence.arcs == {(2, 1): "acl>nsubj"}
    assert sentence.tops == {1: "root"}
    assert sentence.loops == {1: "acl>obj"}
    assert [record.getMessage() for record in caplog.records] == [
        "file.conllu:1: a path through empty node 1.1 leads from word 1 to itself; that is evaluated, but neither "
        "trained on nor predicted"
    ]
    (read_back,) = parse(write_conllu(sentence))
    assert read_back == sentence


def test_files_without_trees_or_graphs():
    (trees_only,) = parse("1 a _ _ _ _ 0 root _ _\n")
    assert (trees_only.heads, trees_only.deprels, trees_only.arcs, trees_only.tops) == (
        [0],
        ["root"],
        None,
        None,
    )
    (unlabelled,) = parse("1 a _ _ _ _ 0 _ _ _\n")
    assert (unlabelled.heads, unlabelled.deprels) == ([0], None)
    (graph_only,) = parse("1 a _ _ _ _ _ _ 0:root _\n")
    assert (graph_only.heads, graph_only.deprels, graph_only.arcs, graph_only.tops) == (
        None,
        None,
        {},
        {1: "root"},
    )
    (words_only,) = parse("1 a _ _ _ _ _ _ _ _\n")
    assert (words_only.heads, words_only.arcs) == (None, None)


def test_a_graph_may_be_cyclic_and_leave_words_out():
    (sentence,) = parse("1 a _ _ _ _ _ _ 2:x _\n2 b _ _ _ _ _ _ 1:y _\n3 . _ _ _ _ _ _ _ _\n")
    assert sentence.arcs == {(1, 2): "x", (2, 1): "y"}
    assert sentence.tops == {}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n \n"])
def test_line_ends_byte_order_mark_and_blank_lines(tmp_path, line_end, start, end):
    path = tmp_path / "x.conllu"
    text = (start + tabbed(EXAMPLE).rstrip("\n") + end).replace("\n", line_end)
    path.write_bytes(text.encode("utf-8"))
    assert list(ConlluGraphsDatasetReader().read_sentences(str(path))) == parse(EXAMPLE)


def test_only_line_feeds_end_lines(tmp_path):
    path = tmp_path / "x.conllu"
    path.write_text("1\ta\u2028b\x85c\x0bd\xa0e\t_\t_\t_\t_\t0\troot\t0:root\t_\n", encoding="utf-8")
    (sentence,) = ConlluGraphsDatasetReader().read_sentences(str(path))
    assert sentence.words == ["a\u2028b\x85c\x0bd\xa0e"]


WORD = "1 a _ _ _ _ 0 root 0:root _\n"

REFUSED = {
    # name: (text, line, words of the message)
    "nine columns": ("1 a _ _ _ _ 0 root 0:root\n", 1, ["9 columns", "ten"]),
    "eleven columns": (WORD + "2 b _ _ _ _ 1 x 1:x _ _\n", 2, ["11 columns", "ten"]),
    "cut in mid-line": (WORD + "2 b _ _", 2, ["4 columns", "ten"]),
    "empty column": ("1 a  _ _ _ 0 root 0:root _\n", 1, ["column 3 is empty"]),
    "first number": ("2 a _ _ _ _ 0 root 0:root _\n", 1, ["expected token number 1", "'2'"]),
    "gap in numbers": (WORD + "3 b _ _ _ _ 1 x 1:x _\n", 2, ["expected token number 2", "'3'"]),
    "double number": (WORD + WORD, 2, ["token number 1 occurs twice"]),
    "no number": ("x a _ _ _ _ 0 root 0:root _\n", 1, ["expected token number 1", "'x'"]),
    "leading zero": ("01 a _ _ _ _ 0 root 0:root _\n", 1, ["expected token number 1"]),
    "double sent_id": (
        "# sent_id = s\n" + WORD + "\n# text = b\n# sent_id = s\n" + WORD,
        5,
        ["duplicate sentence id 's'", "line 1"],
    ),
    "two sent_ids": ("# sent_id = s\n# sent_id = t\n" + WORD, 2, ["second sent_id"]),
    "comment within": (WORD + "# text = b\n", 2, ["comment after the first token"]),
    "comments only": (WORD + "\n# text = b\n\n", 3, ["comments without a sentence"]),
    "head out of range": (
        WORD + "2 b _ _ _ _ 3 x 1:x _\n",
        2,
        ["head 3 is out of range", "0 (the root) to 2"],
    ),
    "negative head": (WORD + "2 b _ _ _ _ -1 x 1:x _\n", 2, ["head -1 is out of range"]),
    "head no integer": (WORD + "2 b _ _ _ _ x x 1:x _\n", 2, ["head 'x' is not an integer"]),
    "head a fraction": (WORD + "2 b _ _ _ _ 1.0 x 1:x _\n", 2, ["head '1.0' is not an integer"]),
    "head a superscript": (WORD + "2 b _ _ _ _ \u00b9 x 1:x _\n", 2, ["is not an integer"]),
    "head missing": (WORD + "2 b _ _ _ _ _ x 1:x _\n", 2, ["head '_' is not an integer"]),
    "relation missing": (WORD + "2 b _ _ _ _ 1 _ 1:x _\n", 2, ["relation", "_"]),
    "own head": (WORD + "2 b _ _ _ _ 2 x 1:x _\n", 2, ["cycle (2 -> 2)"]),
    "cycle": (
        WORD + "2 b _ _ _ _ 4 x 1:x _\n3 c _ _ _ _ 2 x 1:x _\n4 d _ _ _ _ 3 x 1:x _\n",
        2,
        ["cycle (2 -> 4 -> 3 -> 2)"],
    ),
    "no root": ("1 a _ _ _ _ 2 x 0:root _\n2 b _ _ _ _ 1 x 1:x _\n", 1, ["cycle (1 -> 2 -> 1)", "the root"]),
    "two roots": (WORD + "2 b _ _ _ _ 0 root 1:x _\n", 2, ["words 1 and 2", "exactly one root"]),
    "edge out of range": (WORD + "2 b _ _ _ _ 1 x 7:x _\n", 2, ["head 7 is out of range", "DEPS"]),
    "edge without label": (WORD + "2 b _ _ _ _ 1 x 1 _\n", 2, ["'1' in DEPS", "head:label"]),
    "edge with empty label": (WORD + "2 b _ _ _ _ 1 x 1: _\n", 2, ["'1:' in DEPS"]),
    "edge with no head": (WORD + "2 b _ _ _ _ 1 x :x _\n", 2, ["head '' is not an integer"]),
    "edge with an end too many": (WORD + "2 b _ _ _ _ 1 x 1:x| _\n", 2, ["'' in DEPS"]),
    "double edge": (WORD + "2 b _ _ _ _ 1 x 1:x|1:x _\n", 2, ["twice in DEPS"]),
    "loop": (WORD + "2 b _ _ _ _ 1 x 1:x|2:y _\n", 2, ["'2:y' in DEPS", "its own head"]),
    "edge from a missing empty node": (WORD + "2 b _ _ _ _ 1 x 1.1:x _\n", 2, ["head 1.1", "empty node"]),
    "empty node without heads": (WORD + "1.1 b _ _ _ _ _ _ _ _\n", 2, ["empty node 1.1", "DEPS"]),
    "empty node in the tree": (WORD + "1.1 b _ _ _ _ 1 _ 1:x _\n", 2, ["empty node 1.1", "HEAD"]),
    "empty node out of order": (WORD + "1.2 b _ _ _ _ _ _ 1:x _\n", 2, ["empty node 1.2", "expected 1.1"]),
    "double empty node": (WORD + "1.1 b _ _ _ _ _ _ 1:x _\n" * 2, 3, ["empty node 1.1 occurs twice"]),
    "empty node that nothing leads to": (
        WORD + "1.1 b _ _ _ _ _ _ 1.2:x _\n1.2 c _ _ _ _ _ _ 1.1:x _\n2 d _ _ _ _ 1 x 1.1:x _\n",
        4,
        ["head 1.1", "no path"],
    ),
    "multiword token after its words": (WORD + "1-2 ab _ _ _ _ _ _ _ _\n", 2, ["'1-2'", "expected 2-m"]),
    "multiword token of one word": ("1-1 a _ _ _ _ _ _ _ _\n" + WORD, 1, ["'1-1'", "expected 1-m"]),
    "multiword token too long": ("1-2 ab _ _ _ _ _ _ _ _\n" + WORD, 2, ["ends at word 1", "up to word 2"]),
    "multiword tokens overlap": (
        "1-2 ab _ _ _ _ _ _ _ _\n" + WORD + "2-3 bc _ _ _ _ _ _ _ _\n",
        3,
        ["2-3 overlaps", "ends at word 2"],
    ),
    "tree missing": (WORD + "\n1 a _ _ _ _ _ _ 0:root _\n", 3, ["no tree", "line 1"]),
    "relations missing": (WORD + "\n1 a _ _ _ _ 0 _ 0:root _\n", 3, ["no labelled tree", "line 1"]),
    "graph missing": (WORD + "\n# text = a\n1 a _ _ _ _ 0 root _ _\n", 3, ["no graph", "line 1"]),
    "graph in surplus": ("1 a _ _ _ _ 0 root _ _\n\n" + WORD, 3, ["has a graph", "line 1"]),
    "graph said to be empty": ("# graph = empty\n" + WORD, 1, ["graph = empty"]),
}


@pytest.mark.parametrize("text, line, words", REFUSED.values(), ids=REFUSED)
def test_refused(text, line, words):
    with refused_at(f"file.conllu:{line}: ", words):
        parse(text)


def test_spaces_for_tabs_are_refused():
    with pytest.raises(ConfigurationError, match="file.conllu:1: found no tab; .* ten"):
        list(parse_conllu(["1 a _ _ _ _ 0 root 0:root _\n"], "file.conllu"))


@pytest.mark.parametrize("options", [{"empty_nodes": "keep"}, {"labels": "fine"}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ConfigurationError, match="; valid: '"):
        ConlluGraphsDatasetReader(**options)


@given(st.data(), st.booleans(), st.booleans())
def test_what_is_written_reads_back(data, tree, graph):
    written = data.draw(st.lists(sentences(tree, graph), min_size=1, max_size=3))
    assert parse_lines("".join(map(write_conllu, written))) == written


def parse_lines(text: str):
    return list(parse_conllu(text.split("\n"), "written.conllu"))


def test_all_that_the_format_has_reads_back():
    for options in ({}, {"empty_nodes": "drop"}, {"labels": "coarse"}):
        read = parse(EXAMPLE, **options)
        assert parse_lines("".join(map(write_conllu, read))) == read


def test_parallel_edges_are_written_apart():
    sentence = Sentence(words=["a", "b"], arcs={(2, 1): "x|y:z"}, tops={1: "root"})
    assert write_conllu(sentence).splitlines()[1].split("\t")[8] == "1:x|1:y:z"


def test_a_sentence_id_is_written_once():
    sentence = Sentence(words=["a"], sentence_id="s", comments=["# newdoc", "# sent_id = s"])
    assert write_conllu(sentence).splitlines()[:2] == ["# newdoc", "# sent_id = s"]
    sentence.comments = ["# text = a"]
    assert write_conllu(sentence).splitlines()[:2] == ["# sent_id = s", "# text = a"]


@pytest.mark.parametrize("word", ["", "a\tb", "a\nb", "a\rb"])
def test_words_that_cannot_be_written_are_refused(word):
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_conllu(Sentence(words=[word]))


@pytest.mark.parametrize("label", ["", "x|", "x|x"])
def test_labels_that_cannot_be_written_are_refused(label):
    with pytest.raises(ConfigurationError, match="cannot write the label .* 1 -> 2"):
        write_conllu(Sentence(words=["a", "b"], arcs={(2, 1): label}, tops={}))


@pytest.mark.parametrize("comment", ["text", "# a\n# b"])
def test_comments_that_cannot_be_written_are_refused(comment):
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_conllu(Sentence(words=["a"], comments=[comment]))


def test_damaged_files_end_in_clear_errors(tmp_path):
    damage_is_refused(EXAMPLE, tmp_path / "damaged.conllu", ConlluGraphsDatasetReader().read_sentences, 2000)


def as_conllu_reads_it(token_list):
    """Words, tree and edges according to the `conllu` library."""
    words = [token for token in token_list if isinstance(token["id"], int)]
    edges = {
        (token["id"], ".".join(map(str, (head[0], head[2]))) if isinstance(head, tuple) else head, label)
        for token in token_list
        if not (isinstance(token["id"], tuple) and token["id"][1] == "-")
        for label, head in token["deps"]
    }
    return words, edges


def test_treebank_against_conllu(ewt_path):
    ours = list(ConlluGraphsDatasetReader(empty_nodes="drop").read_sentences(str(ewt_path)))
    num_words = num_edges = num_empty = num_several = 0
    with open(ewt_path, encoding="utf-8") as file:
        for sentence, token_list in zip(ours, conllu.parse_incr(file), strict=True):
            words, edges = as_conllu_reads_it(token_list)
            assert sentence.sentence_id == token_list.metadata["sent_id"]
            assert sentence.words == [token["form"] for token in words]
            assert sentence.lemmas == [token["lemma"] for token in words]
            assert sentence.pos_tags == [token["upos"] for token in words]
            assert sentence.tags == [token["xpos"] or "_" for token in words]
            assert sentence.heads == [token["head"] for token in words]
            assert sentence.deprels == [token["deprel"] for token in words]
            among_words = {edge for edge in edges if isinstance(edge[0], int) and isinstance(edge[1], int)}
            assert among_words == {
                *((word, 0, label) for word, label in sentence.tops.items()),
                *((dependent, head, label) for (dependent, head), label in sentence.arcs.items()),
            }
            num_words += len(words)
            num_edges += sum(isinstance(edge[0], int) for edge in edges)
            num_several += sum(len(token["deps"]) > 1 for token in words)
            num_empty += sum(isinstance(token["id"], tuple) and token["id"][1] == "." for token in token_list)
    expected = {
        "train.conllu": (12_544, 204_577, 215_890, 10_120, 37),
        "dev.conllu": (2_001, 25_147, 26_386, 1_141, 4),
    }
    assert (len(ours), num_words, num_edges, num_several, num_empty) == expected[ewt_path.name]


def test_treebank_labels(ewt_path):
    coarse = ConlluGraphsDatasetReader(empty_nodes="drop", labels="coarse").read_sentences(str(ewt_path))
    full = ConlluGraphsDatasetReader(empty_nodes="drop").read_sentences(str(ewt_path))
    seen = set()
    for with_full, with_coarse in zip(full, coarse, strict=True):
        assert with_coarse.arcs.keys() == with_full.arcs.keys()
        assert with_coarse.deprels == with_full.deprels
        seen.update(with_full.arcs.values(), with_full.tops.values())
    with open(ewt_path, encoding="utf-8") as file:
        expected = {
            label
            for token_list in conllu.parse_incr(file)
            for dependent, head, label in as_conllu_reads_it(token_list)[1]
            if isinstance(dependent, int) and isinstance(head, int)
        }
    assert seen == expected
    assert len({coarse_label(label) for label in seen}) == 36


def test_treebank_reads_back(ewt_path):
    read = list(ConlluGraphsDatasetReader().read_sentences(str(ewt_path)))
    text = "".join(map(write_conllu, read))
    assert parse_lines(text) == read
    # Byte for byte the same but for the edges that touch empty nodes, and those nodes.
    original = ewt_path.read_text(encoding="utf-8").split("\n")
    kept = [line for line in original if line[:1] == "#" or "." not in line.partition("\t")[0]]
    touched = [i for i, (old, new) in enumerate(zip(kept, text.split("\n"), strict=True)) if old != new]
    for index in touched:
        assert any("." in edge.partition(":")[0] for edge in kept[index].split("\t")[8].split("|"))
    assert 0 < len(touched) < 100
