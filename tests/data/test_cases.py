"""Inputs seen in real use that were refused, misread or passed over in silence: what is right for each."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Vocabulary
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
from spigot_allennlp.data.text_files import parse_json, read_lines
from tests.data.sentences import sentences, tabbed

SOME_DEPS = """\
# sent_id = a
1 Sol Sol X _ _ 2 nsubj 2:nsubj _
2 lucet lucet X _ _ 0 root 0:root _

# sent_id = b
1 Luna Luna X _ _ 2 nsubj _ _
2 lucet lucet X _ _ 0 root _ _
"""
DUPLICATE_EDGE = """\
1 x x X _ _ 2 nsubj 2:nsubj|2:nsubj _
2 y y X _ _ 0 root 0:root _
"""
EMPTY_NODE_WITHOUT_DEPS = """\
0.1 went went X _ _ _ _ _ _
1 There There X _ _ 2 orphan 0.1:advmod _
2 two two X _ _ 0 root 0.1:obj _
3 . . X _ _ 2 punct 0.1:punct _
"""
CYCLIC_TREE = """\
1 x x X _ _ 2 a 0:root _
2 y y X _ _ 1 b 1:c _
"""
UNANNOTATED = """\
#SDP 2015
#1
1 Dogs dog NNS
2 bark bark VBP
"""


def write(path: Path, text: str) -> str:
    path.write_text(tabbed(text), encoding="utf-8")
    return str(path)


def conllu(text: str, **keys: Any) -> list[Sentence]:
    return list(parse_conllu(io.StringIO(tabbed(text)), "x", **keys))


class TestLayersThatAreSwitchedOff:
    @pytest.mark.parametrize(
        "text, lengths", [(SOME_DEPS, [2, 2]), (DUPLICATE_EDGE, [2]), (EMPTY_NODE_WITHOUT_DEPS, [3])]
    )
    def test_graphs(self, tmp_path, text, lengths):
        path = write(tmp_path / "x.conllu", text)
        instances = list(ConlluGraphsDatasetReader(graphs=False).read(path))
        assert [len(instance["head_indices"].labels) for instance in instances] == lengths
        assert not any("arc_tags" in instance.fields or "tops" in instance.fields for instance in instances)
        with pytest.raises(ConfigurationError):
            list(ConlluGraphsDatasetReader().read(path))

    def test_trees(self, tmp_path):
        path = write(tmp_path / "x.conllu", CYCLIC_TREE)
        (instance,) = ConlluGraphsDatasetReader(trees=False).read(path)
        assert instance["arc_tags"].indices == [(1, 0)] and "head_indices" not in instance.fields
        with pytest.raises(ConfigurationError, match="cycle"):
            list(ConlluGraphsDatasetReader().read(path))

    def test_dropped_empty_nodes(self):
        (sentence,) = conllu(EMPTY_NODE_WITHOUT_DEPS, empty_nodes="drop")
        assert (len(sentence), sentence.arcs, sentence.tops) == (3, {}, {})

    def test_layers_of_sdp(self, tmp_path):
        # The graph's second predicate has no column, the tree is a cycle.
        text = "#1\n1 a a X 2 r + + _ _\n2 b b X 1 r - + _ X\n"
        graph = "#1\n1 a a X 0 r + + _ _\n2 b b X 1 r - + _ X\n"
        reader = SdpDatasetReader(trees=False, graphs=False)
        (instance,) = reader.read(write(tmp_path / "x.sdp", text))
        assert set(instance.fields) == {"tokens", "metadata"}
        with pytest.raises(ConfigurationError, match="cycle"):
            list(SdpDatasetReader(graphs=False).read(write(tmp_path / "x.sdp", text)))
        with pytest.raises(ConfigurationError, match="2 argument columns"):
            list(SdpDatasetReader(trees=False).read(write(tmp_path / "x.sdp", text)))
        (instance,) = SdpDatasetReader(graphs=False).read(write(tmp_path / "x.sdp", graph))
        assert instance["head_indices"].labels == [0, 1]

    def test_companions_of_sdp(self, tmp_path):
        companion = write(tmp_path / "x.cpn", "#1\nNNS 2 a\nVBP 1 b\n")
        path = write(tmp_path / "x.sdp", "#1\n1 Dogs dog X - - _\n2 bark bark X + - _\n")
        (instance,) = SdpDatasetReader(companion=companion, trees=False).read(path)
        assert [token.tag_ for token in instance["tokens"]] == ["NNS", "VBP"] and "head_indices" not in instance.fields
        with pytest.raises(ConfigurationError, match="cycle"):
            list(SdpDatasetReader(companion=companion).read(path))


class TestAbsentGraphs:
    def test_are_empty_where_the_reader_is_told_so(self, tmp_path):
        path = write(tmp_path / "x.conllu", SOME_DEPS)
        first, second = ConlluGraphsDatasetReader(absent_graphs="empty").read(path)
        assert first["arc_tags"].indices == [(0, 1)] and first["tops"].labels == [0, 1]
        assert second["arc_tags"].indices == [] and second["tops"].labels == [0, 0]
        assert second["arc_tags"].as_tensor({"num_tokens": 3}).tolist() == [[-1.0] * 3] * 3

    def test_the_error_says_how_to_go_on(self):
        with pytest.raises(ConfigurationError, match="x:5: the sentence has no graph.*absent_graphs to 'empty'"):
            conllu(SOME_DEPS)

    def test_the_first_sentences_may_lack_it(self):
        first, second = SOME_DEPS.split("\n\n")
        assert [sentence.arcs for sentence in conllu(second + "\n" + first, absent_graphs="empty")][0] == {}

    def test_a_file_without_any_graph_has_none(self):
        assert [sentence.arcs for sentence in conllu(SOME_DEPS.split("\n\n")[1], absent_graphs="empty")] == [None]

    def test_another_value(self):
        with pytest.raises(ConfigurationError, match="absent_graphs is 'yes'; valid: 'refuse', 'empty'"):
            ConlluGraphsDatasetReader(absent_graphs="yes")


class TestFilesToPredictOn:
    def test_unannotated_sdp(self, tmp_path):
        (instance,) = SdpDatasetReader().read(write(tmp_path / "input.tt", UNANNOTATED))
        assert [(token.text, token.lemma_, token.pos_) for token in instance["tokens"]] == [
            ("Dogs", "dog", "NNS"),
            ("bark", "bark", "VBP"),
        ]
        assert set(instance.fields) == {"tokens", "metadata"}
        with pytest.raises(ConfigurationError, match=r"x:3: found 5 columns; expected 4 \(id form lemma pos\)"):
            list(parse_sdp(io.StringIO(tabbed(UNANNOTATED.replace("VBP", "VBP +")).partition("\n")[2]), "x"))

    def test_pairs_without_labels(self, tmp_path):
        pair = {"sentence1": "A man sings.", "sentence2": "A man eats."}
        path = str(tmp_path / "x.jsonl")
        Path(path).write_text(json.dumps(pair))
        (instance,) = SnliPairsDatasetReader().read(path)
        assert set(instance.fields) == {"premise", "hypothesis", "metadata"}
        labelled = {**pair, "gold_label": "neutral"}
        for lines, message in (
            ([labelled, pair], "x.jsonl:2: the key 'gold_label' is missing"),
            ([pair, labelled], "x.jsonl:2: the key 'gold_label' is not in the lines before"),
            ([{**labelled, "gold_labell": 1}], "x.jsonl:1: unknown key 'gold_labell'; valid: gold_label"),
        ):
            (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
            with pytest.raises(ConfigurationError, match=message):
                list(SnliPairsDatasetReader().read(path))

    def test_sentences_without_labels(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text('{"sentence": "Don\'t miss it."}\n{"tokens": ["Boring"]}\n')
        for granularity in (2, 5):
            first, second = SstTreesDatasetReader(granularity=granularity).read(str(path))
            assert "label" not in first.fields and first["metadata"]["words"] == ["Do", "n't", "miss", "it", "."]
        path.write_text('{"sentence": "a"}\n{"sentence": "a", "label": 1}\n')
        with pytest.raises(ConfigurationError, match="x.jsonl:2: the key 'label' is not in the lines before"):
            list(SstTreesDatasetReader().read(str(path)))


class TestTextOfSentiment:
    TEXT = "1\tDon't miss it, it's great.\n0\tBoring!\n"

    def test_is_tokenized_as_in_prediction(self, tmp_path):
        path = tmp_path / "untokenized.tsv"
        path.write_text(self.TEXT)
        reader = SstTreesDatasetReader(granularity=2)
        first, second = reader.read(str(path))
        words = ["Do", "n't", "miss", "it", ",", "it", "'s", "great", "."]
        assert first["metadata"]["words"] == words and second["metadata"]["words"] == ["Boring", "!"]
        assert reader.text_to_instance("Don't miss it, it's great.")["metadata"]["words"] == words

    def test_a_key_says_how(self, tmp_path):
        path = tmp_path / "untokenized.tsv"
        path.write_text(self.TEXT)
        reader = DatasetReader.from_params(Params({"type": "sst_trees", "tokenizer": "whitespace"}))
        first, _ = reader.read(str(path))
        assert first["metadata"]["words"] == ["Don't", "miss", "it,", "it's", "great."]

    def test_what_is_tokenized_stays(self, tmp_path):
        path = tmp_path / "x"
        for line in ("(3 (2 don't) (2 stop!))", '{"label": 1, "tokens": ["don\'t", "stop!"]}'):
            path.write_text(line)
            (instance,) = SstTreesDatasetReader().read(str(path))
            assert instance["metadata"]["words"] == ["don't", "stop!"]

    def test_columns_too_many(self, tmp_path):
        path = tmp_path / "three.tsv"
        path.write_text("1\tgood film\t0\n0\tbad film\t1\n")
        with pytest.raises(ConfigurationError, match="three.tsv:1: found 3 columns; expected two: label<TAB>sentence"):
            list(SstTreesDatasetReader().read(str(path)))

    def test_unknown_keys(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text('{"label": 1, "tokens": ["a"], "pos_tags": ["X"]}')
        with pytest.raises(ConfigurationError, match="x.jsonl:1: unknown key 'pos_tags'; valid: 'label', 'sentence'"):
            list(SstTreesDatasetReader().read(str(path)))


def test_duplicate_keys_of_json():
    with pytest.raises(ValueError, match="the key 'a' occurs twice"):
        parse_json('{"b": {"a": 1, "a": 2}}')


def test_compressed_files_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "x.conllu.gz"
    path.write_bytes(gzip.compress("\ufeff".encode() + tabbed(DUPLICATE_EDGE).encode()))
    (instance,) = ConlluGraphsDatasetReader(graphs=False).read(str(path))
    assert instance["tokens"][0].text == "x"
    path.write_bytes(b"no gzip")
    with pytest.raises(ConfigurationError, match="x.conllu.gz: cannot be read"):
        list(read_lines(str(path)))


class TestWriters:
    WRITERS = [(write_conllu, parse_conllu), (write_sdp, parse_sdp)]

    @pytest.mark.parametrize(
        "keys, message",
        [
            ({"heads": [2, 1], "deprels": ["a", "b"]}, "heads form a cycle"),
            ({"heads": [0, 3]}, r"head 3 is out of range; expected 0 \(the root\) to 2"),
            ({"heads": [0, -1]}, "head -1 is out of range"),
            ({"heads": [0, 1], "deprels": ["root", "_"]}, "relation _ of word 2"),
            ({"deprels": ["root", "x"]}, "relations without heads"),
        ],
    )
    @pytest.mark.parametrize("write", [write_conllu, write_sdp])
    def test_refused(self, write, keys, message):
        with pytest.raises(ConfigurationError, match=message):
            write(Sentence(words=["a", "b"], arcs={}, tops={}, **keys))

    def test_several_roots(self):
        sentence = Sentence(words=["a", "b"], heads=[0, 0], deprels=["x", "y"], arcs={}, tops={})
        with pytest.raises(ConfigurationError, match="words 1 and 2 both have head 0"):
            write_conllu(sentence)
        assert next(parse_sdp(io.StringIO(write_sdp(sentence)), "x")).heads == [0, 0]

    @pytest.mark.parametrize("name", ["heads", "deprels", "lemmas", "misc", "frames"])
    def test_lengths(self, name):
        with pytest.raises(ConfigurationError, match=f"has 2 words, but 1 {name}"):
            Sentence(words=["a", "b"], **{name: [0]})
        sentence = Sentence(words=["a", "b"], arcs={}, tops={})
        setattr(sentence, name, [0])
        with pytest.raises(ConfigurationError, match=f"has 2 words, but 1 {name}"):
            write_conllu(sentence)

    def test_tops_between_words_only(self):
        with pytest.raises(ConfigurationError, match="top node or predicate 3; words are numbered from 1 to 2"):
            Sentence(words=["a", "b"], arcs={}, tops={3: "root"})

    @pytest.mark.parametrize("writer", [0, 1])
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_what_is_written_reads_back(self, writer, data):
        """Whatever is done to a sentence: it is refused, or the same is read."""
        write, parse = self.WRITERS[writer]
        sentence = data.draw(sentences(tree=True, graph=True, sentence_id="7"))
        length = len(sentence)
        damage = {
            "heads": st.lists(st.integers(-1, length + 1), min_size=length, max_size=length),
            "deprels": st.sampled_from([None, ["_"] * length, ["a"] * (length - 1)]),
            "tops": st.dictionaries(st.integers(1, length), st.sampled_from(["root"]), max_size=2),
            "arcs": st.dictionaries(
                st.tuples(st.integers(1, length), st.integers(1, length)).filter(lambda arc: arc[0] != arc[1]),
                st.sampled_from(["a", "_", "", "a|b", "a|a", "a\tb"]),
                max_size=2,
            )
            if length > 1
            else st.just({}),
            "sentence_id": st.sampled_from([None, "", " 7", "7\n", "SDP 2015"]),
            "comments": st.lists(st.sampled_from(["# x", "y", "# sent_id = 7", "# graph = empty"]), max_size=2),
            "multiword_tokens": st.dictionaries(
                st.integers(0, length), st.sampled_from(["1-2\ta" + "\t_" * 8, "2-3\tb" + "\t_" * 8, "1-2"]), max_size=2
            ),
        }
        for name in data.draw(st.lists(st.sampled_from(sorted(damage)), min_size=1, max_size=3, unique=True)):
            setattr(sentence, name, data.draw(damage[name]))
        try:
            text = write(sentence)
        except ConfigurationError as error:
            assert len(str(error)) < 400
            return
        (found,) = parse(io.StringIO(text), "x")
        names = ["words", "heads", "deprels", "arcs", "sentence_id"]
        if write is write_conllu:
            names += ["tops", "multiword_tokens"]
            expected = [comment for comment in sentence.comments if "sent_id" not in comment]
            assert [comment for comment in found.comments if "sent_id" not in comment] == expected
        assert sorted(found.tops) == sorted(sentence.tops)
        for name in names:
            assert getattr(found, name) == getattr(sentence, name), name


@pytest.mark.parametrize("reader", [ConlluGraphsDatasetReader, SdpDatasetReader, SstTreesDatasetReader])
def test_errors_do_not_repeat_what_is_long(reader, tmp_path):
    texts = {
        ConlluGraphsDatasetReader: "# sent_id = a\n1-2 x _ _ _ _ _ _ _ _\n1 x x X _ _ 2 nsubj 2:nsubj|1.1:b _\n"
        "1.1 z z X _ _ _ _ 2:dep _\n2 y y X _ _ 0 root 0:root _\n",
        SdpDatasetReader: "#1\n1 a a X 0 r + + _ _\n2 b b X 1 r - - _ X\n",
        SstTreesDatasetReader: "(3 (2 a) (2 b))\n",
    }
    text = texts[reader]
    cells = text.split()
    refused = 0
    for long in ("9" * 5000, "x" * 5000, "1-" + "2" * 5000, "é:" * 2500):
        for place in range(len(cells)):
            damaged, start = "", 0
            for index, cell in enumerate(cells):
                at = text.index(cell, start)
                damaged += text[start:at] + (long if index == place else cell)
                start = at + len(cell)
            try:
                list(reader().read(write(tmp_path / "x", damaged + text[start:])))
            except ConfigurationError as error:
                refused += 1
                assert len(str(error)) < 600
    assert refused > 10


def test_a_long_sentence_with_many_edges(tmp_path):
    """Its tensor is AllenNLP's, written at once."""
    generator = torch.Generator().manual_seed(0)
    heads = torch.rand(60, 60, generator=generator).gt(0.5).tolist()
    arcs = {(d + 1, h + 1): f"l{(d + h) % 3}" for d in range(60) for h in range(60) if heads[d][h] and d != h}
    reader = ConlluGraphsDatasetReader()
    instance = reader.text_to_instance(Sentence(words=["w"] * 60, arcs=arcs, tops={1: "root"}))
    reader.apply_token_indexers(instance)
    vocabulary = Vocabulary.from_instances([instance])
    field = instance["arc_tags"]
    field.index(vocabulary)
    found = field.as_tensor({"num_tokens": 62})
    assert torch.equal(found, super(type(field), field).as_tensor({"num_tokens": 62}))
    assert found.dtype == torch.float and (found >= 0).sum() == len(arcs)


class TestTagger:
    @pytest.fixture(scope="class")
    def pipeline(self, tmp_path_factory) -> str:
        nlp = spacy.blank("en")
        ruler = nlp.add_pipe("attribute_ruler")
        ruler.add([[{"LOWER": "dogs"}]], {"POS": "NOUN", "TAG": "NNS", "LEMMA": "dog"})
        path = tmp_path_factory.mktemp("pipeline") / "rules"
        # A word of its own, so that any pipeline of this test says something of it.
        ruler.add([[{"LOWER": "word"}]], {"POS": "NOUN"})
        nlp.to_disk(path)
        return str(path)

    def test_lemmas_and_parts_of_speech(self, pipeline, tmp_path):
        reader = ConlluGraphsDatasetReader(tagger=pipeline)
        path = write(tmp_path / "x.conllu", "1 Dogs GOLD _ _ _ 0 root _ _\n2 bark bark VERB _ _ 1 x _ _\n")
        for instance in (reader.text_to_instance(["Dogs", "bark"]), *reader.read(path)):
            described = [(token.text, token.lemma_, token.pos_, token.tag_) for token in instance["tokens"]]
            assert described == [("Dogs", "dog", "NOUN", "NNS"), ("bark", "_", "_", "_")]
        # What is written keeps what the file has.
        sentence = instance["metadata"]["graph"]
        assert (sentence.lemmas, sentence.pos_tags) == (["GOLD", "bark"], ["NOUN", "VERB"])

    def test_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="spaCy has no pipeline 'none_such' here"):
            ConlluGraphsDatasetReader(tagger="none_such")
        spacy.blank("en").to_disk(tmp_path / "blank")
        with pytest.raises(ConfigurationError, match="predicts neither lemmas nor parts of speech"):
            ConlluGraphsDatasetReader(tagger=str(tmp_path / "blank"))
