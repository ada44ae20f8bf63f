import gc

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DatasetReader, Token, Vocabulary
from allennlp.data.dataset_readers.dataset_reader import WorkerInfo
from allennlp.data.token_indexers import SingleIdTokenIndexer

from spigot_allennlp.data import ConlluGraphsDatasetReader, SdpDatasetReader, Sentence

CONLLU = """\
# sent_id = a
1	It	it	PRON	PRP	_	2	nsubj	2:nsubj|3:nsubj:xsubj	_
2	wants	want	VERB	VBZ	_	0	root	0:root	_
3	sleep	sleep	VERB	VB	_	2	xcomp	2:xcomp	_

# sent_id = b
1	Go	go	VERB	VB	_	0	root	0:root	_
"""
SDP = """\
#SDP 2015
#a
1	It	it	PRP	-	-	_	ARG1	ARG1
2	wants	want	VBZ	+	+	v	_	_
3	sleep	sleep	VB	-	+	v	ARG2	_

#b
1	Go	go	VB	+	-	_

"""
COMPANION = "#a\nPRP\t2\tnsubj\nVBZ\t0\troot\nVB\t2\txcomp\n\n#b\nVB\t0\troot\n\n"
INDEXERS = {
    "tokens": SingleIdTokenIndexer(),
    "lemmas": SingleIdTokenIndexer("lemmas", feature_name="lemma_"),
    "pos_tags": SingleIdTokenIndexer("pos", feature_name="pos_"),
    "tags": SingleIdTokenIndexer("xpos", feature_name="tag_"),
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "x.conllu").write_text(CONLLU)
    (tmp_path / "x.sdp").write_text(SDP)
    (tmp_path / "x.cpn").write_text(COMPANION)
    return tmp_path


def readers_and_paths(files):
    return [
        (ConlluGraphsDatasetReader(), str(files / "x.conllu")),
        (SdpDatasetReader(companion=str(files / "x.cpn")), str(files / "x.sdp")),
    ]


def test_registered_names(files):
    reader = DatasetReader.from_params(
        Params(
            {
                "type": "conllu_graphs",
                "token_indexers": {"words": {"type": "single_id"}},
                "empty_nodes": "drop",
                "labels": "coarse",
                "max_instances": 1,
            }
        )
    )
    assert isinstance(reader, ConlluGraphsDatasetReader)
    (instance,) = reader.read(str(files / "x.conllu"))
    assert list(instance["tokens"].token_indexers) == ["words"]
    assert instance["arc_tags"].labels == ["nsubj", "nsubj", "xcomp"]
    for companion in (str(files / "x.cpn"), [str(files / "x.cpn")]):
        reader = DatasetReader.from_params(Params({"type": "sdp", "companion": companion}))
        assert isinstance(reader, SdpDatasetReader)
        assert len(list(reader.read(str(files / "x.sdp")))) == 2


def test_fields(files):
    for reader, path in readers_and_paths(files):
        first, second = reader.read(path)
        assert [token.text for token in first["tokens"]] == ["It", "wants", "sleep"]
        assert [token.lemma_ for token in first["tokens"]] == ["it", "want", "sleep"]
        assert [token.tag_ for token in first["tokens"]] == ["PRP", "VBZ", "VB"]
        assert first["head_indices"].labels == [2, 0, 2]
        assert first["head_tags"].labels == ["nsubj", "root", "xcomp"]
        assert first["arc_tags"].indices == [(0, 1), (0, 2), (2, 1)]
        assert first["tops"].labels == [0, 1, 0]
        assert first["metadata"]["words"] == ["It", "wants", "sleep"]
        assert [instance["metadata"]["sentence_id"] for instance in (first, second)] == ["a", "b"]
        assert first["metadata"]["graph"].tops == {2: "root"}
        assert second["arc_tags"].indices == [] and second["tops"].labels == [1]
    conllu, sdp = (next(iter(reader.read(path))) for reader, path in readers_and_paths(files))
    assert [token.pos_ for token in conllu["tokens"]] == ["PRON", "VERB", "VERB"]
    assert [token.pos_ for token in sdp["tokens"]] == ["PRP", "VBZ", "VB"]
    assert conllu["arc_tags"].labels == ["nsubj", "nsubj:xsubj", "xcomp"]
    assert sdp["arc_tags"].labels == ["ARG1", "ARG1", "ARG2"]


def test_batch(files):
    for reader, path in readers_and_paths(files):
        reader._token_indexers = INDEXERS
        instances = list(reader.read(path))
        vocab = Vocabulary.from_instances(instances)
        assert not {"head_index_tags", "tops_tags"} & vocab._token_to_index.keys()
        batch = Batch(instances)
        batch.index_instances(vocab)
        tensors = batch.as_tensor_dict()
        assert tensors["tokens"].keys() == INDEXERS.keys()
        assert tensors["head_indices"].tolist() == [[2, 0, 2], [0, 0, 0]]
        relations = vocab.get_token_to_index_vocabulary("head_relations")
        assert tensors["head_tags"][0].tolist() == [relations[r] for r in ("nsubj", "root", "xcomp")]
        assert tensors["tops"].tolist() == [[0, 1, 0], [1, 0, 0]]
        labels = [instance["arc_tags"].labels for instance in instances][0]
        expected = torch.full((2, 3, 3), -1)
        for (dependent, head), label in zip([(0, 1), (0, 2), (2, 1)], labels, strict=True):
            expected[0, dependent, head] = vocab.get_token_index(label, "arc_relations")
        assert tensors["arc_tags"].tolist() == expected.tolist()


def test_labels_that_the_vocabulary_lacks_are_unknown(files):
    for reader, path in readers_and_paths(files):
        first, second = reader.read(path)
        vocab = Vocabulary.from_instances([second])
        batch = Batch([first])
        batch.index_instances(vocab)
        tensors = batch.as_tensor_dict()
        unknown = vocab.get_token_index("nowhere", "arc_relations")
        assert tensors["arc_tags"].max() == unknown
        assert tensors["head_tags"][0, 0] == vocab.get_token_index("nowhere", "head_relations")


def test_fields_are_present_where_the_file_has_them(files):
    trees_only = "".join(
        "\t".join([*line.split("\t")[:8], "_", "_"]) + "\n" if line[:1] not in ("", "#") else line + "\n"
        for line in CONLLU.splitlines()
    )
    (files / "trees.conllu").write_text(trees_only)
    instance = next(iter(ConlluGraphsDatasetReader().read(str(files / "trees.conllu"))))
    assert instance.fields.keys() == {"tokens", "metadata", "head_indices", "head_tags"}
    instance = next(iter(SdpDatasetReader().read(str(files / "x.sdp"))))
    assert instance.fields.keys() == {"tokens", "metadata", "arc_tags", "tops"}


@pytest.mark.parametrize("reader", [ConlluGraphsDatasetReader(INDEXERS), SdpDatasetReader(INDEXERS)])
def test_plain_words(reader):
    vocab = Vocabulary()
    for words in (["A", "b"], [Token("A"), Token("b")]):
        instance = reader.text_to_instance(words)
        reader.apply_token_indexers(instance)
        assert instance.fields.keys() == {"tokens", "metadata"}
        assert instance["metadata"]["words"] == ["A", "b"]
        assert instance["metadata"]["graph"] == Sentence(words=["A", "b"])
        batch = Batch([instance])
        batch.index_instances(vocab)
        assert batch.as_tensor_dict()["tokens"]["pos_tags"]["tokens"].shape == (1, 2)
    tagged = reader.text_to_instance([Token("A", lemma_="a", pos_="DET", tag_="DT")])["metadata"]["graph"]
    assert (tagged.lemmas, tagged.pos_tags, tagged.tags) == (["a"], ["DET"], ["DT"])
    with pytest.raises(ConfigurationError, match="at least one word"):
        reader.text_to_instance([])


@pytest.mark.parametrize("reader", [ConlluGraphsDatasetReader(), SdpDatasetReader()])
def test_files_that_are_none(tmp_path, reader):
    empty, blank, binary, cut = (tmp_path / name for name in ("empty", "blank", "binary", "cut"))
    empty.write_text("")
    blank.write_text("\n \n\n")
    binary.write_bytes(b"# \xc3\xa9\n# b\xe9\n")
    cut.write_bytes(b"# a\n1\t\xc3")
    for path, message in [
        (tmp_path / "missing", "there is no such file"),
        (tmp_path, "is a directory"),
        (empty, "holds no sentences"),
        (blank, "holds no sentences"),
    ]:
        with pytest.raises(ConfigurationError, match=f"^{path}: .*{message}"):
            list(reader.read(str(path)))
    for path, line, byte in [(binary, 2, 4), (cut, 2, 3)]:
        with pytest.raises(ConfigurationError, match=f"^{path}:{line}: byte {byte} .* UTF-8"):
            list(reader.read(str(path)))


def test_a_sentence_in_two_companion_files_is_refused(files):
    paths = [str(files / "x.cpn"), str(files / "y.cpn")]
    (files / "y.cpn").write_text(COMPANION.replace("#a", "#c"))
    with pytest.raises(ConfigurationError, match=f"^{paths[1]}: .*'b'"):
        list(SdpDatasetReader(companion=paths).read(str(files / "x.sdp")))


def test_arcs_between_words_only():
    for arc in [(1, 0), (0, 1), (1, 1), (3, 1), (1, 3)]:
        with pytest.raises(ConfigurationError, match=f"the arc {arc[1]} -> {arc[0]}"):
            Sentence(words=["a", "b"], arcs={arc: "x"}, tops={})
    with pytest.raises(ConfigurationError, match="both 'arcs' and 'tops'"):
        Sentence(words=["a", "b"], arcs={})


def test_workers_share_the_sentences(tmp_path):
    path = tmp_path / "many.conllu"
    path.write_text("".join(f"1\tw{i}\t_\t_\t_\t_\t0\troot\t0:root\t_\n\n" for i in range(600)))
    words = []
    for worker in range(2):
        reader = ConlluGraphsDatasetReader()
        reader._set_worker_info(WorkerInfo(num_workers=2, id=worker))
        words.append([instance["metadata"]["words"][0] for instance in reader.read(str(path))])
    assert words == [[f"w{i}" for i in range(0, 600, 2)], [f"w{i}" for i in range(1, 600, 2)]]
    limited = ConlluGraphsDatasetReader(max_instances=300)
    assert len(list(limited.read(str(path)))) == 300


def test_garbage_collection_is_on_while_instances_are_used(tmp_path):
    path = tmp_path / "bad.conllu"
    path.write_text("1\ta\t_\t_\t_\t_\t0\troot\t0:root\t_\n\n" * 300 + "1\ta\n")
    with pytest.raises(ConfigurationError, match=":601: "):
        for _ in ConlluGraphsDatasetReader().read(str(path)):
            assert gc.isenabled()
    assert gc.isenabled()
