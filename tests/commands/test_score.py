"""`allennlp score`: by hand, against a slow count, what it refuses, and that it agrees with the models' own metrics."""

import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple
from unittest import mock

import pytest
import torch
from allennlp.commands import main
from allennlp.common.checks import ConfigurationError
from allennlp.data.data_loaders import SimpleDataLoader
from allennlp.models import load_archive
from allennlp.predictors import Predictor

from spigot_allennlp.commands.score import score_files
from spigot_allennlp.data import write_conllu
from tests.conftest import FIXTURES
from tests.data.sentences import tabbed

GOLD = tabbed("""# sent_id = 1
1 I I _ _ _ 2 nsubj 2:nsubj|4:nsubj:xsubj _
2 like like _ _ _ 0 root 0:root _
3-4 dont _ _ _ _ _ _ _ _
3 do do _ _ _ 2 aux 2:aux _
4 nt not _ _ _ 3 advmod 3:advmod _
5 tea tea _ _ _ 2 obj 2:obj|5.1:nsubj _
5.1 like _ _ _ _ _ _ 2:conj:and _

""")
# "dont" is one word, "tea" two, and there is a second top node.
SYSTEM = tabbed("""1 I I _ _ _ 2 nsubj:pass 2:nsubj _
2 like like _ _ _ 0 root 0:root _
3 dont dont _ _ _ 2 aux 2:aux _
4 te te _ _ _ 2 obj 2:obj _
5 a a _ _ _ 2 obj 0:root _

""")


def files(folder: Path, gold: str, system: str, suffix: str = "conllu") -> Tuple[str, str]:
    paths = (folder / f"gold.{suffix}", folder / f"system.{suffix}")
    for path, text in zip(paths, (gold, system)):
        path.write_text(text, encoding="utf-8")
    return str(paths[0]), str(paths[1])


def triple(correct: int, predicted: int, gold: int) -> Dict[str, float]:
    return {"precision": correct / predicted, "recall": correct / gold, "f1": 2 * correct / (predicted + gold)}


def test_by_hand(tmp_path: Path):
    scores = score_files(*files(tmp_path, GOLD, SYSTEM))
    # "I" and "like" are aligned, no other word.
    assert scores == {
        "words": triple(2, 5, 5),
        "UAS": triple(2, 5, 5),
        "LAS": triple(2, 5, 5),
        # Gold: 2 + 1 + 1 + 1 + 2 edges, the path through 5.1 (conj:and>nsubj) among them.
        "ELAS": triple(2, 5, 7),
        "EULAS": triple(2, 5, 7),
        # Without labels the two edges from "like" to "tea" are one.
        "labeled": {**triple(2, 5, 7), "exact_match": 0.0},
        "unlabeled": {**triple(2, 5, 6), "exact_match": 0.0},
    }


def test_words_of_multiword_tokens_are_aligned_by_form(tmp_path: Path):
    split = SYSTEM.replace("3\tdont", "3-4\tdont" + "\t_" * 8 + "\n3\tDO").replace("\n4\tte\t", "\n4\tno" + "\t_" * 4)
    split = split[: split.index("4\tno")] + tabbed("4 no _ _ _ _ 3 advmod 3:advmod _\n5 tea _ _ _ _ 2 obj 2:iobj _\n\n")
    scores = score_files(*files(tmp_path, GOLD, split))
    assert scores["words"] == triple(4, 5, 5)
    assert scores["UAS"] == triple(4, 5, 5)
    # I, like, DO with their edges; "tea" has the wrong label.
    assert scores["ELAS"] == triple(3, 5, 7)


def test_words_of_a_multiword_token_may_be_tokens_of_their_own_elsewhere(tmp_path: Path):
    split = SYSTEM[: SYSTEM.index("3\tdont")]
    split += tabbed("3 do do _ _ _ 2 aux 2:aux _\n4 nt nt _ _ _ 3 advmod 3:advmod _\n5 tea _ _ _ _ 2 obj 2:obj _\n\n")
    scores = score_files(*files(tmp_path, GOLD, split))
    assert scores["words"] == triple(5, 5, 5)
    assert scores["ELAS"] == triple(5, 5, 7)


def test_parallel_edges_with_one_universal_label_match_each_other(tmp_path: Path):
    text = GOLD.replace("4:nsubj:xsubj", "2:nsubj:xsubj")
    scores = score_files(*files(tmp_path, text, text))
    assert scores["ELAS"] == triple(7, 7, 7)
    assert scores["EULAS"]["f1"] == pytest.approx(9 / 7)


def test_a_path_from_a_word_to_itself_is_an_edge(tmp_path: Path):
    text = GOLD.replace("2:conj:and _".replace(" ", "\t"), "5:conj:and\t_")
    assert score_files(*files(tmp_path, text, text))["ELAS"] == triple(7, 7, 7)
    scores = score_files(*files(tmp_path, text, text.replace("|5.1:nsubj", "")))
    assert scores["ELAS"] == triple(6, 6, 7)
    # As a file in which paths are collapsed already has it.
    collapsed = text.replace("5.1:nsubj", "5:conj:and>nsubj").replace(text[text.index("5.1\t") :], "\n")
    assert score_files(*files(tmp_path, text, collapsed))["ELAS"] == triple(7, 7, 7)


def test_sentences_may_be_split_differently(tmp_path: Path):
    one = tabbed("1 a _ _ _ _ 0 root 0:root _\n2 b _ _ _ _ 1 dep 1:dep _\n\n")
    two = tabbed("1 a _ _ _ _ 0 root 0:root _\n\n1 b _ _ _ _ 0 root 0:root _\n\n")
    scores = score_files(*files(tmp_path, one + one, one + two))
    assert scores["LAS"] == triple(3, 4, 4)
    assert scores["labeled"] == {**triple(3, 4, 4), "exact_match": 0.5}


# A slow count: words by the characters that they cover, all pairs of edges, paths by trying all sequences of nodes.


def random_sentence(generator: random.Random, text: str, position: int) -> Tuple[List[Tuple[str, List[str]]], str]:
    """
    Tokens, each with its words; and the lines. The words of multiword tokens have forms of their own at each position
    of the text, so that there is one alignment only.
    """
    tokens: List[Tuple[str, List[str]]] = []
    while text:
        piece, text = text[: (cut := generator.choice([1, 1, 2, 3]))], text[cut:]
        forms = [f"w{position}{part}" for part in "ABC"[: generator.choice([2, 3])]]
        tokens.append((piece, forms if generator.random() < 0.25 else [piece]))
        position += len(piece)
    length = sum(len(words) for _, words in tokens)
    empty = [f"{generator.randint(1, length)}.1"] if generator.random() < 0.5 else []
    lines, word = [], 0

    def edges(node: str) -> str:
        heads = [str(head) for head in range(length + 1) if str(head) != node] + [e for e in empty if e != node] * 3
        found = {(generator.choice(heads), generator.choice(["a", "a:x", "b"])) for _ in range(generator.randint(1, 3))}
        return "|".join(f"{head}:{label}" for head, label in sorted(found))

    for piece, words in tokens:
        if len(words) > 1:
            lines.append(f"{word + 1}-{word + len(words)} {piece} _ _ _ _ _ _ _ _")
        for form in words:
            word += 1
            lines.append(f"{word} {form} _ _ _ _ {word - 1} {generator.choice(['a', 'a:x', 'b'])} {edges(str(word))} _")
            lines += [f"{node} _ _ _ _ _ _ _ {edges(node)} _" for node in empty if node.startswith(f"{word}.")]
    return tokens, tabbed("\n".join(lines) + "\n\n")


Text = List[Tuple[List[Tuple[str, List[str]]], str]]


def random_sentences(generator: random.Random, texts: List[str]) -> Text:
    return [random_sentence(generator, text, len("".join(texts[:i]))) for i, text in enumerate(texts)]


def slow_words(text: Text) -> List[Tuple[str, Set[int], bool]]:
    words, position = [], 0
    for tokens, _ in text:
        for piece, forms in tokens:
            covered = set(range(position, position + len(piece)))
            words += [(form.lower(), covered, len(forms) > 1) for form in forms]
            position += len(piece)
    return words


def slow_alignment(gold: Text, system: Text) -> Dict[int, int]:
    ours, theirs = slow_words(gold), slow_words(system)
    regions: List[Set[int]] = []
    for _, covered, multiword in ours + theirs:
        if multiword:
            touching = [region for region in regions if region & covered]
            regions = [region for region in regions if not region & covered] + [covered.union(*touching)]
    pairs = {
        s: g
        for g, (_, first, _) in enumerate(ours)
        for s, (_, second, _) in enumerate(theirs)
        if first == second and not any(region & first for region in regions)
    }
    for region in regions:
        inside = [[i for i, word in enumerate(words) if word[1] <= region] for words in (ours, theirs)]
        for size in range(min(map(len, inside)), 0, -1):
            found = [
                (g, s)
                for g, s in itertools.product(*(itertools.combinations(each, size) for each in inside))
                if [ours[i][0] for i in g] == [theirs[i][0] for i in s]
            ]
            if found:
                pairs.update(zip(found[0][1], found[0][0]))
                break
    return pairs


def slow_edges(text: Text, names: Dict[int, Any]) -> Tuple[Set[Tuple], Set[Tuple]]:
    """The edges of the trees and those of the graphs."""
    tree, graph, offset = set(), set(), 0
    for _, block in text:
        rows = [line.split("\t") for line in block.split("\n") if "\t" in line]
        length = sum(row[0].isdigit() for row in rows)
        name = {"0": "root", **{str(i + 1): names.get(offset + i, ("other", offset + i)) for i in range(length)}}
        direct = [(row[0], *edge.split(":", 1)) for row in rows if "-" not in row[0] for edge in row[8].split("|")]
        empty = [row[0] for row in rows if "." in row[0]]
        for row in rows:
            if row[0].isdigit():
                tree.add((name[row[0]], name[row[6]], row[7].split(":")[0]))
        for dependent, head, label in direct:
            if head in name and dependent in name:
                graph.add((name[dependent], name[head], label))
            elif dependent in name:  # There is one empty node at most: no longer paths.
                into = [(source, first) for node, source, first in direct if node == empty[0]]
                graph.update((name[dependent], name[source], f"{first}>{label}") for source, first in into)
        offset += length
    return tree, graph


def slow_scores(gold: Text, system: Text) -> Dict[str, Dict[str, float]]:
    pairs = slow_alignment(gold, system)
    num_words = [len(slow_words(side)) for side in (system, gold)]
    (gold_tree, gold_graph), (tree, graph) = (
        slow_edges(gold, {i: i for i in range(num_words[1])}),
        slow_edges(system, pairs),
    )

    def universal(edge: Tuple) -> Tuple:
        return (*edge[:2], [step.split(":")[0] for step in edge[2].split(">")])

    matched = sum(universal(first) == universal(second) for first in graph for second in gold_graph)

    def items(edges: Set[Tuple], labeled: bool) -> Set[Tuple]:
        return {(*edge[:2], labeled and edge[1] != "root" and edge[2]) for edge in edges}

    scores = {
        "words": triple(len(pairs), *num_words),
        "UAS": triple(len({e[:2] for e in tree} & {e[:2] for e in gold_tree}), *num_words),
        "LAS": triple(len(tree & gold_tree), *num_words),
        "ELAS": triple(len(graph & gold_graph), len(graph), len(gold_graph)),
        "EULAS": triple(matched, len(graph), len(gold_graph)),
    }
    for name in ("labeled", "unlabeled"):
        sides = [items(edges, name == "labeled") for edges in (graph, gold_graph)]
        scores[name] = triple(len(sides[0] & sides[1]), *map(len, sides))
    return scores


def test_against_a_slow_count(tmp_path: Path):
    generator = random.Random(0)
    some_right = 0
    for number in range(150):
        texts = ["".join(generator.choices("abc", k=generator.randint(1, 7))) for _ in range(generator.randint(2, 3))]
        state = generator.getstate()
        gold = random_sentences(generator, texts)
        if number % 3 == 0:  # The same words in all sentences, and the same edges in all but the last one.
            generator.setstate(state)
            system = random_sentences(generator, texts[:-1]) + random_sentences(generator, texts)[-1:]
        elif number % 3 == 1:  # Other sentences, too.
            system = random_sentences(generator, ["".join(texts)])
        else:
            system = random_sentences(generator, texts)
        paths = files(tmp_path, *("".join(block for _, block in side) for side in (gold, system)))
        scores = score_files(*paths)
        for values in scores.values():
            values.pop("exact_match", None)
        assert scores.keys() == (expected := slow_scores(gold, system)).keys()
        for name in expected:
            assert scores[name] == pytest.approx(expected[name], abs=1e-12), (number, name)
        some_right += 0 < scores["ELAS"]["f1"] < 1
    assert some_right > 40


SDP = tabbed("#SDP 2015\n#1\n1 a a N + + _ _ _\n2 b b N + - _ x _\n3 c c N - + _ y _\n\n")


def test_sdp(tmp_path: Path):
    other = SDP.replace("y\t_", "z\t_").replace("2\tb\tb\tN\t+", "2\tb\tb\tN\t-")
    scores = score_files(*files(tmp_path, SDP + SDP.replace("#1", "#2"), SDP + other.replace("#1", "#2"), "sdp"))
    assert scores == {
        "words": triple(6, 6, 6),
        "labeled": {**triple(6, 7, 8), "exact_match": 0.5},
        "unlabeled": {**triple(7, 7, 8), "exact_match": 0.5},
    }


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("\ttea\ttea", "\tted\tted"), "system.conllu:7: found 'd', but "),
        (lambda text: text.replace("\tI\tI", "\tJ\tI"), "gold.conllu:2 has 'Ilikedonttea'"),
        (lambda text: text + text.replace("# sent_id = 1\n", ""), "gold.conllu ends where "),
        (lambda text: text + text.replace("# sent_id = 1\n", ""), "system.conllu:10 goes on with 'Ilikedonttea'"),
        (lambda text: text.replace("\ttea\ttea", "\t\xa0\ttea"), "system.conllu:7: the token is nothing but spaces"),
        (lambda text: "", "system.conllu: the file holds no sentences"),
        (lambda text: text.replace("\t0\troot", "\t9\troot"), "system.conllu:3: head 9 is out of range"),
        (lambda text: text.replace("0:root", "0;root"), "system.conllu:3: '0;root' in DEPS is not an edge"),
        (lambda text: text.replace("4\tnt", "7\tnt"), "system.conllu:6: expected token number 4, found '7'"),
    ],
)
def test_files_that_cannot_be_compared(tmp_path: Path, change: Any, message: str):
    with pytest.raises(ConfigurationError) as error:
        score_files(*files(tmp_path, GOLD, change(GOLD)))
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_nothing_in_common_and_unknown_formats(tmp_path: Path):
    tree = tabbed("1 a _ _ _ _ 0 root _ _\n\n")
    graph = tabbed("1 a _ _ _ _ _ _ 0:root _\n\n")
    with pytest.raises(ConfigurationError, match="nothing to compare: .*gold.conllu has trees, .*system.conllu graphs"):
        score_files(*files(tmp_path, tree, graph))
    paths = files(tmp_path, graph, graph, "txt")
    with pytest.raises(ConfigurationError, match="cannot tell the format of .*gold.txt; valid: .*--format"):
        score_files(*paths)
    assert score_files(*paths, "conllu")["ELAS"]["f1"] == 1.0


def run(*arguments: str) -> None:
    with mock.patch.object(sys, "argv", ["allennlp", "score", *arguments]):
        main()


def test_command(tmp_path: Path, capsys):
    paths = files(tmp_path, GOLD, SYSTEM)
    run(*paths, "--json")
    assert json.loads(capsys.readouterr().out) == score_files(*paths)
    run(*paths)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ELAS", "40.00", "28.57", "33.33"] in rows
    with pytest.raises(SystemExit, match="error: .*none.conllu: there is no such file$"):
        run(paths[0], str(tmp_path / "none.conllu"))


@pytest.mark.parametrize("archive_name", ["semantic_parser", "syntactic_parser"])
def test_agrees_with_the_metrics_of_a_model(tmp_path: Path, archive_name: str):
    archive = load_archive(FIXTURES / "models" / f"{archive_name}.tar.gz")
    model = archive.model.eval()
    instances = list(archive.validation_dataset_reader.read(str(FIXTURES / "graphs" / "dev.conllu")))
    loader = SimpleDataLoader(instances, batch_size=16, vocab=model.vocab)
    model.get_metrics(reset=True)
    with torch.no_grad():
        for batch in loader:
            model(**batch)
    metrics = model.get_metrics(reset=True)
    predictor = Predictor.from_archive(archive, extra_args={"output_format": "conllu"})
    outputs = predictor.predict_batch_instance(instances)
    # The model's labels are coarse, and so are those that it is evaluated on.
    gold = "".join(write_conllu(instance["metadata"]["graph"]) for instance in instances)
    scores = score_files(*files(tmp_path, gold, "".join(map(predictor.dump_line, outputs))))
    expected = {"uas": "UAS", "las": "LAS", "elas": "ELAS", "eulas": "EULAS", "labeled_f1": "labeled"}
    for metric, name in expected.items():
        assert (metric in metrics) == (name in scores), metric
        if metric in metrics:
            assert metrics[metric] == pytest.approx(scores[name]["f1"], abs=1e-12), metric
    if "elas" in metrics:
        assert metrics["_labeled_exact_match"] == scores["labeled"]["exact_match"]
        assert 0 < metrics["elas"] < 1
