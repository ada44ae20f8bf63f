import dataclasses

import pytest
from allennlp.common.checks import ConfigurationError
from hypothesis import given
from hypothesis import strategies as st

from spigot_allennlp.data import (
    SDP_HEADER,
    SdpDatasetReader,
    Sentence,
    parse_companion,
    parse_conllu,
    parse_sdp,
    write_conllu,
    write_sdp,
)
from tests.data.sentences import damage_is_refused, refused_at, sentences, tabbed


def parse(text: str, companion=None):
    return list(parse_sdp(tabbed(text).splitlines(True), "file.sdp", companion))


SDP_2015 = """\
#SDP 2015
#22000001
1 the the DT - + q:i-h-h _ _ _
2 boy boy NN - - n:x BV ARG1 ARG1
3 wants want VBZ + + v:e-i-h _ _ _
4 to to TO - - _ _ _ _
5 sleep sleep VB - + v:e-i _ ARG2 _

#22000002
1 Wow wow UH - - _
2 . _ . - - _

"""
SDP_2014 = """\
#22000001
1 the the DT - + _ _ _
2 boy boy NN - - BV ARG1 ARG1
3 wants want VBZ + + _ _ _
4 to to TO - - _ _ _
5 sleep sleep VB - + _ ARG2 _

#22000002
1 Wow wow UH - -
2 . _ . - -

"""
AUGMENTED = """\
#22000001
1 the the DT 2 det - + q:i-h-h _ _ _
2 boy boy NN 3 nsubj - - n:x BV ARG1 ARG1
3 wants want VBZ 0 root + + v:e-i-h _ _ _
4 to to TO 5 aux - - _ _ _ _
5 sleep sleep VB 3 xcomp - + v:e-i _ ARG2 _

#22000002
1 Wow wow UH 0 root - - _
2 . _ . 0 punct - - _

"""
COMPANION = """\
#22000002
UH 0 root
. 0 punct

#22000001
DT 2 det
NN 3 nsubj
VBZ 0 root
TO 5 aux
VB 3 xcomp

"""
COMPANION_CONLLU = """\
# sent_id = 22000002
1 Wow _ INTJ UH _ 0 root _ _
2 . _ PUNCT . _ 0 punct _ _

# text = the boy wants to sleep
# sent_id = 22000001
1 the _ DET DT _ 2 det _ _
2-3 x _ _ _ _ _ _ _ _
2 boy _ NOUN NN _ 3 nsubj _ _
3 wants _ VERB VBZ _ 0 root _ _
3.1 y _ _ _ _ _ _ 1:z _
4 to _ PART TO _ 5 aux _ _
5 sleep _ VERB VB _ 3 xcomp _ _
"""
ARCS = {(2, 1): "BV", (2, 3): "ARG1", (2, 5): "ARG1", (5, 3): "ARG2"}


def test_2015():
    first, second = parse(SDP_2015)
    assert first.sentence_id == "22000001"
    assert first.words == ["the", "boy", "wants", "to", "sleep"]
    assert first.lemmas == ["the", "boy", "want", "to", "sleep"]
    assert first.pos_tags == ["DT", "NN", "VBZ", "TO", "VB"]
    assert first.frames == ["q:i-h-h", "n:x", "v:e-i-h", "_", "v:e-i"]
    assert first.arcs == ARCS
    assert first.tops == {3: "root"}
    assert first.predicates == [1, 3, 5]
    assert first.heads is None and first.deprels is None
    assert (second.sentence_id, second.line) == ("22000002", 9)
    assert (second.arcs, second.tops) == ({}, {})


def test_the_header_is_optional():
    assert parse(SDP_2015.partition("\n")[2]) == parse(SDP_2015)
    assert parse(SDP_2015.replace(SDP_HEADER, SDP_HEADER + "\n")) == parse(SDP_2015)


def test_2014_differs_in_the_frames():
    for text in (SDP_2014, "#SDP 2014\n" + SDP_2014):
        assert parse(text) == [
            dataclasses.replace(sentence, frames=["_"] * len(sentence)) for sentence in parse(SDP_2015)
        ]


def test_augmented():
    for text in (AUGMENTED, SDP_HEADER + "\n" + AUGMENTED):
        first, second = parse(text)
        assert (first.heads, first.deprels) == ([2, 3, 0, 5, 3], ["det", "nsubj", "root", "aux", "xcomp"])
        assert (second.heads, second.deprels) == ([0, 0], ["root", "punct"])
        without_trees = [dataclasses.replace(each, heads=None, deprels=None) for each in (first, second)]
        assert without_trees == parse(SDP_2015)


@pytest.mark.parametrize("text", [COMPANION, SDP_HEADER + "\n" + COMPANION, COMPANION_CONLLU])
def test_companion(text):
    companion = parse_companion(tabbed(text).splitlines(True), "file.cpn")
    read = parse(SDP_2015, companion)
    assert [sentence.tags for sentence in read] == [["DT", "NN", "VBZ", "TO", "VB"], ["UH", "."]]
    assert [dataclasses.replace(each, tags=["_"] * len(each)) for each in read] == parse(AUGMENTED)


def test_ids_may_be_missing_and_comments_follow_them():
    first, second = parse("1 a _ _ - - _\n\n#x\n# y\n1 a _ _ - - _\n")
    assert (first.sentence_id, first.comments) == (None, [])
    assert (second.sentence_id, second.comments) == ("x", ["# y"])


ROW = "1 a _ NN + - _\n"
TREE_ROW = "1 a _ NN 0 root + - _\n"

REFUSED = {
    # name: (text, line, words of the message)
    "too few columns": ("1 a _ NN + -\n2 b _ NN\n", 2, ["4 columns", "at least 6"]),
    "too few columns in 2015": (SDP_HEADER + "\n1 a _ NN + -\n", 2, ["6 columns", "at least 7"]),
    "cut in mid-line": (ROW + "2 b", 2, ["2 columns", "at least 7"]),
    "too few arguments": (
        "#1\n1 a _ NN + + f _\n2 b _ NN - - _\n",
        3,
        ["7 columns", "7 (id", "1 argument columns", "predicate"],
    ),
    "too many arguments": (SDP_HEADER + "\n" + ROW + "2 b _ NN - - _ ARG1\n", 3, ["8 columns", "0 argument"]),
    "too many arguments throughout": (
        SDP_HEADER + "\n1 a _ NN + + f _ _\n2 b _ NN - - _ x _\n",
        2,
        ["9 columns", "1 argument columns"],
    ),
    "too few arguments in 2014": ("1 a _ NN + + _\n2 b _ NN - -\n", 2, ["6 columns", "6 (id", "1 argument"]),
    "too few arguments, augmented": (
        TREE_ROW + "2 b _ NN 1 x - + _\n",
        1,
        ["9 columns", "9 (id", "1 argument"],
    ),
    "another format later on": (ROW + "\n#2\n1 a _ NN + -\n", 4, ["6 columns", "at least 7"]),
    "empty column": ("1 a  NN + - _\n", 1, ["column 3 is empty"]),
    "top": (SDP_HEADER + "\n1 a _ NN x - _\n", 2, ["top (column 5)", "+ or -", "'x'"]),
    "pred": ("1 a _ NN - _ _\n", 1, ["pred (column 6)", "+ or -", "'_'"]),
    "first number": ("2 a _ NN + - _\n", 1, ["expected token number 1", "'2'"]),
    "gap in numbers": (ROW + "3 b _ NN + - _\n", 2, ["expected token number 2", "'3'"]),
    "double number": (ROW + ROW, 2, ["token number 1 occurs twice"]),
    "double id": ("#1\n" + ROW + "\n#2\n" + ROW + "\n#1\n" + ROW, 7, ["duplicate sentence id '1'", "line 1"]),
    "id within": (ROW + "#2\n" + ROW, 2, ["comment after the first token", "blank line"]),
    "id only": ("#1\n" + ROW + "\n#2\n", 4, ["sentence id without a sentence"]),
    "loop": ("1 a _ NN + + _ ARG1\n", 1, ["'ARG1' of word 1 to itself"]),
    "head out of range": (TREE_ROW + "2 b _ NN 3 x - - _\n", 2, ["head 3 is out of range", "to 2"]),
    "head no integer": (TREE_ROW + "2 b _ NN x x - - _\n", 2, ["head 'x' is not an integer"]),
    "head no integer in the first row": ("1 a _ NN x x - - _\n", 1, ["head 'x' is not an integer"]),
    "no root": ("1 a _ NN 2 x - - _\n2 b _ NN 1 x - - _\n", 1, ["cycle (1 -> 2 -> 1)", "root"]),
    "cycle": (TREE_ROW + "2 b _ NN 3 x - - _\n3 c _ NN 2 x - - _\n", 2, ["cycle (2 -> 3 -> 2)"]),
    "relation missing": (TREE_ROW + "2 b _ NN 1 _ - - _\n", 2, ["relation", "_"]),
}


@pytest.mark.parametrize("text, line, words", REFUSED.values(), ids=REFUSED)
def test_refused(text, line, words):
    with refused_at(f"file.sdp:{line}: ", words):
        parse(text)


def test_spaces_for_tabs_are_refused():
    with pytest.raises(ConfigurationError, match="file.sdp:1: found no tab"):
        list(parse_sdp([ROW], "file.sdp"))


REFUSED_COMPANIONS = {
    "no id": ("DT 0 root\n", 1, ["without an id line"]),
    "double id": ("#1\nDT 0 root\n\n#1\nDT 0 root\n", 4, ["duplicate sentence id '1'", "line 1"]),
    "columns": ("#1\nDT 0 root\nDT 1\n", 3, ["2 columns", "3 (pos head deprel) or 10"]),
    "cycle": ("#1\nDT 0 root\nDT 3 x\nDT 2 x\n", 3, ["cycle (2 -> 3 -> 2)"]),
    "head out of range": ("#1\nDT 0 root\nDT 3 x\n", 3, ["head 3 is out of range", "to 2"]),
    "number": ("#1\n2 a _ _ NN _ 0 root _ _\n", 2, ["expected token number 1", "'2'"]),
    "no words": ("#1\n1.1 a _ _ NN _ _ _ 0:root _\n", 2, ["without words"]),
    "id only": ("#1\n", 1, ["without a sentence"]),
}


@pytest.mark.parametrize("text, line, words", REFUSED_COMPANIONS.values(), ids=REFUSED_COMPANIONS)
def test_refused_companion(text, line, words):
    with refused_at(f"file.cpn:{line}: ", words):
        parse_companion(tabbed(text).splitlines(True), "file.cpn")


def test_companion_that_does_not_fit_is_refused():
    companion = parse_companion(tabbed(COMPANION).splitlines(True), "file.cpn")
    refused = [
        (SDP_2015.replace("22000002", "22000003"), 9, "no companion file has .* '22000003'"),
        (SDP_2015.replace("2 . _ . - - _\n", ""), 9, "1 tokens, and 2 in the companion file"),
        (ROW, 1, "no id line"),
        (AUGMENTED, 1, "has a tree already"),
    ]
    for text, line, problem in refused:
        with pytest.raises(ConfigurationError, match=f"^file.sdp:{line}: .*{problem}"):
            parse(text, companion)
    with pytest.raises(ConfigurationError, match="^file.cpn: the file holds no sentences"):
        parse_companion([], "file.cpn")


@given(st.data(), st.booleans())
def test_what_is_written_reads_back(data, tree):
    written = [
        data.draw(sentences(tree, graph=True, single_root=False, sentence_id=f"{index}"))
        for index in range(data.draw(st.integers(1, 3)))
    ]
    for sentence in written:
        sentence.predicates = sorted({head for _, head in sentence.arcs})
    text = SDP_HEADER + "\n" + "".join(map(write_sdp, written))
    assert list(parse_sdp(text.split("\n"), "written.sdp")) == written


@pytest.mark.parametrize("text", [SDP_2015, AUGMENTED])
def test_writing_gives_the_same_file(text):
    header = SDP_HEADER + "\n" if text.startswith(SDP_HEADER) else ""
    assert header + "".join(map(write_sdp, parse(text))) == tabbed(text)


def test_predicates_without_arguments_are_kept():
    text = tabbed("1 a _ _ - + f _ _\n2 b _ _ - + g x _\n\n")
    (sentence,) = parse_sdp(text.split("\n"), "file.sdp")
    assert sentence.predicates == [1, 2]
    assert write_sdp(sentence) == text


def test_sdp_and_conllu_hold_the_same_trees_and_graphs():
    for sentence in parse(AUGMENTED)[:1]:
        (again,) = parse_conllu(write_conllu(sentence).split("\n"), "written.conllu")
        assert again == dataclasses.replace(sentence, frames=again.frames, predicates=None, comments=again.comments)


@pytest.mark.parametrize(
    "sentence",
    [
        Sentence(words=["a"]),
        Sentence(words=["a\tb"], arcs={}, tops={}),
        Sentence(words=["a", "b"], arcs={(1, 2): "_"}, tops={}),
        Sentence(words=["a", "b"], arcs={(1, 2): ""}, tops={}),
        Sentence(words=["a"], arcs={}, tops={}, sentence_id="1\n"),
    ],
)
def test_what_cannot_be_written_is_refused(sentence):
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_sdp(sentence)


@pytest.mark.parametrize("text", [SDP_2015, AUGMENTED])
def test_damaged_files_end_in_clear_errors(tmp_path, text):
    damage_is_refused(text, tmp_path / "damaged.sdp", SdpDatasetReader().read_sentences, 1000)


@pytest.mark.parametrize("text", [COMPANION, COMPANION_CONLLU])
def test_damaged_companions_end_in_clear_errors(tmp_path, text):
    path = tmp_path / "file.sdp"
    path.write_text(tabbed(SDP_2015))

    def read(companion: str):
        return SdpDatasetReader(companion=companion).read_sentences(str(path))

    damage_is_refused(text, tmp_path / "damaged.cpn", read, 500, f"{path}:")
