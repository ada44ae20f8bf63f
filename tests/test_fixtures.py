import json
import runpy
from collections import Counter
from typing import Dict, List

import conllu
import pytest
from nltk import Tree

from spigot_allennlp.data import Sentence, parse_companion, parse_conllu, parse_sdp
from tests.conftest import FIXTURES, PROJECT_ROOT

CONLLU = ["train", "dev", "test"]


@pytest.fixture(scope="module")
def made() -> Dict[str, str]:
    return runpy.run_path(str(PROJECT_ROOT / "scripts" / "make_fixtures.py"))["make_files"]()


def lines_of(name: str) -> List[str]:
    return (FIXTURES / name).read_text(encoding="utf-8").splitlines()


def graphs(part: str, **options: str) -> List[Sentence]:
    return list(parse_conllu(lines_of(f"graphs/{part}.conllu"), f"{part}.conllu", **options))


def is_projective(heads: List[int]) -> bool:
    arcs = [sorted(arc) for arc in enumerate(heads, 1)]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)


def test_the_script_reproduces_the_files(made: Dict[str, str]):
    for name, content in made.items():
        assert (FIXTURES / name).read_bytes() == content.encode("utf-8"), f"make fixtures, or check in {name}"


def test_sizes():
    sizes = {path.relative_to(FIXTURES): path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()}
    archives = sum(size for path, size in sizes.items() if path.parts[0] == "models")
    assert sum(sizes.values()) - archives < 440_000 and archives < 80_000
    assert [len(graphs(part)) for part in CONLLU] == [400, 100, 70]
    lengths = [len(sentence) for part in CONLLU for sentence in graphs(part)]
    assert min(lengths) == 1 and max(lengths) == 20


def test_no_sentence_of_the_training_data_is_seen_again():
    training = {tuple(sentence.words) for sentence in graphs("train")}
    for part in CONLLU[1:]:
        assert not any(len(sentence) > 1 and tuple(sentence.words) in training for sentence in graphs(part))


@pytest.mark.parametrize("part", CONLLU)
def test_conllu_is_valid(part: str):
    sentences = conllu.parse("\n".join(lines_of(f"graphs/{part}.conllu")) + "\n")
    ids = [sentence.metadata["sent_id"] for sentence in sentences]
    assert len(set(ids)) == len(ids)
    for sentence in sentences:
        words = [token for token in sentence if isinstance(token["id"], int)]
        assert [word["id"] for word in words] == list(range(1, len(words) + 1))
        assert sum(word["head"] == 0 for word in words) == 1
        assert all((word["head"] == 0) == (word["deprel"] == "root") for word in words)
        assert all(word["upos"].isalpha() and word["xpos"] and word["lemma"] for word in words)
        for token in sentence:
            if isinstance(token["id"], int) or token["id"][1] == ".":
                keys = [head if isinstance(head, tuple) else (head, ".", 0) for _, head in token["deps"]]
                assert keys == sorted(set(keys)) and keys
        # The text is what the tokens spell.
        spelled, position = "", 0
        for token in sentence:
            if isinstance(token["id"], tuple) and token["id"][1] == ".":
                continue
            number = token["id"] if isinstance(token["id"], int) else token["id"][0]
            if number > position:
                position = number if isinstance(token["id"], int) else token["id"][2]
                no_space = (token["misc"] or {}).get("SpaceAfter") == "No"
                spelled += token["form"] + ("" if no_space else " ")
        assert spelled.strip() == sentence.metadata["text"]


@pytest.mark.parametrize("part", CONLLU)
def test_trees_and_graphs_show_what_matters(part: str):
    sentences = graphs(part)
    heads_of = [Counter(dependent for dependent, _ in sentence.arcs) for sentence in sentences]
    assert sum(max(heads.values(), default=0) > 1 for heads in heads_of) > 0.2 * len(sentences), "re-entrancies"
    assert sum(len(sentence.tops) > 1 for sentence in sentences) > 0.02 * len(sentences), "several tops"
    nonprojective = sum(not is_projective(sentence.heads) for sentence in sentences)
    assert 0.01 * len(sentences) < nonprojective < 0.15 * len(sentences)
    labels = Counter(label for sentence in sentences for label in sentence.arcs.values())
    assert labels["nsubj:xsubj"] and labels["ref"] and labels["conj:and"] and labels["nmod:with"] and labels["obl:with"]
    assert labels["conj:and>nsubj"] and labels["conj:and>obj"], "empty nodes"
    assert any(sentence.multiword_tokens for sentence in sentences)
    # Every word hangs on something.
    assert all(
        len(heads.keys() | sentence.tops.keys()) == len(sentence) for heads, sentence in zip(heads_of, sentences)
    )


def test_words_alone_do_not_say_what_a_phrase_attaches_to():
    """Both attachments occur with the same preposition and noun, where there is a noun between verb and phrase."""
    attachments: Dict[str, Counter] = {}
    for sentence in graphs("train"):
        for word, (head, deprel) in enumerate(zip(sentence.heads, sentence.deprels), 1):
            nominal = {"NOUN", "PROPN"} & set(sentence.pos_tags[head : word - 1])
            if deprel == "nmod" or (deprel == "obl" and nominal):
                phrase = f"{sentence.arcs[word, head].partition(':')[2]} {sentence.words[word - 1]}"
                attachments.setdefault(phrase, Counter())[deprel] += 1
    rarer = sum(min(counter.values()) for counter in attachments.values() if len(counter) == 2)
    assert rarer > 0.1 * sum(sum(counter.values()) for counter in attachments.values())


@pytest.mark.parametrize("part", ["train", "dev"])
def test_sdp_has_the_same_graphs(part: str):
    companion = parse_companion(lines_of(f"graphs/{part}.cpn"), f"{part}.cpn")
    sentences = list(parse_sdp(lines_of(f"graphs/{part}.sdp"), f"{part}.sdp", companion))
    by_words = {tuple(sentence.words): sentence for sentence in graphs(part)}
    for sentence in sentences:
        other = by_words[tuple(sentence.words)]
        assert sentence.arcs == other.arcs and sentence.tops.keys() == other.tops.keys()
        assert sentence.heads == other.heads and sentence.deprels == other.deprels
    assert len(sentences) == {"train": 60, "dev": 30}[part]


def test_augmented_sdp_is_sdp_with_its_companion():
    companion = parse_companion(lines_of("graphs/dev.cpn"), "dev.cpn")
    plain = list(parse_sdp(lines_of("graphs/dev.sdp"), "dev.sdp", companion))
    augmented = list(parse_sdp(lines_of("graphs/dev.augmented.sdp"), "dev.augmented.sdp"))
    for one, other in zip(plain, augmented, strict=True):
        assert (one.sentence_id, one.words, one.arcs, one.tops) == (
            other.sentence_id,
            other.words,
            other.arcs,
            other.tops,
        )
        assert (one.heads, one.deprels, one.frames) == (other.heads, other.deprels, other.frames)


@pytest.mark.parametrize("part, number", [("train", 200), ("dev", 60)])
def test_sentiment_trees(part: str, number: int):
    trees = [Tree.fromstring(line) for line in lines_of(f"sst/{part}.txt")]
    assert len(trees) == number
    for tree in trees:
        for node in tree.subtrees():
            assert node.label() in "01234"
            assert len(node) == 2 or isinstance(node[0], str)
    assert {tree.label() for tree in trees} == set("01234")
    assert any("-LRB-" in tree.leaves() for tree in trees)
    # Negation turns around what it is attached to, so that counting words is not enough.
    polar = [tree for tree in trees if tree.label() != "2"]
    positive = set("lovely good tasty brilliant charming superb loved love".split())
    negative = set("awful dull bland bad dreadful clumsy hated hate".split())

    def counted(tree: Tree) -> int:
        return sum((leaf in positive) - (leaf in negative) for leaf in tree.leaves())

    right = sum((counted(tree) > 0) == (tree.label() in "34") for tree in polar if counted(tree) != 0)
    assert right < 0.8 * len(polar)


@pytest.mark.parametrize("part, number", [("train", 80), ("dev", 30)])
def test_inference_pairs(part: str, number: int):
    pairs = [json.loads(line) for line in lines_of(f"snli/{part}.jsonl")]
    assert len(pairs) == number
    labels = Counter(pair["gold_label"] for pair in pairs)
    assert set(labels) <= {"entailment", "neutral", "contradiction", "-"} and len(labels) >= 3
    assert part == "dev" or labels["-"], "a pair without a majority"
    assert all(pair["sentence1"].endswith(" .") and pair["sentence2"].endswith(" .") for pair in pairs)


def test_plain_text_and_vectors():
    sentences = lines_of("text/sentences.txt")
    assert len(sentences) == 12 and all(sentence.strip() for sentence in sentences)
    rows = [line.split(" ") for line in lines_of("vectors/vectors.txt")]
    assert {len(row) for row in rows} == {11}
    words = [row[0] for row in rows]
    assert len(set(words)) == len(words)
    assert {word.lower() for sentence in graphs("train") for word in sentence.words} <= set(words)
    assert all(-5 < float(value) < 5 for row in rows for value in row[1:])
