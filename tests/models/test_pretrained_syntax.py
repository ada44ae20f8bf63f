"""A syntactic parser from an archive: it goes on meaning the same, stays as it is where frozen, or learns on."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.models import load_archive

from spigot_allennlp.models import SyntacticParser, SyntacticThenSemantic
from tests.conftest import FIXTURES
from tests.models.parsers import Parser, build, parser_keys, read, write_conllu_file
from tests.training.small import configuration, write_corpus

NEW_CORPUS = [
    # With words, and relations of tree and graph, that the parser has never seen.
    [("Anna", 2, "dep", "2:dep"), ("sang", 0, "root", "0:root"), ("songs", 2, "unheard", "2:unseen")],
    [("dogs", 2, "dep", "2:dep"), ("sang", 0, "root", "0:root")],
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.fixture(scope="module")
def archive(corpus: Path, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("parser")
    trainer = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 20}
    config = {**configuration(corpus, trainer=trainer), "model": parser_keys(dropout=0.3)}
    train_model(Params(config), str(directory), force=True)
    return directory / "model.tar.gz"


@pytest.fixture(scope="module")
def new_corpus(tmp_path_factory) -> Path:
    return write_conllu_file(tmp_path_factory.mktemp("corpus") / "new.conllu", NEW_CORPUS)


def pretrained(archive: Path) -> Dict[str, Any]:
    return {"type": "from_archive", "archive_file": str(archive)}


def extended(archive: Path, path: Path) -> Vocabulary:
    params = Params({"type": "extend", "directory": str(archive)})
    return Vocabulary.from_params(params, instances=read(path))


def test_it_parses_as_before(archive, corpus, new_corpus):
    alone = load_archive(archive).model.eval()
    parser = build(
        new_corpus,
        vocab=extended(archive, new_corpus),
        syntactic_parser=pretrained(archive),
        frozen_parser=True,
        estimator="pipeline",
    )
    for instance in read(corpus):
        expected = alone.forward_on_instance(instance)
        found = parser.model.forward_on_instance(instance)
        assert (found["heads"], found["deprels"]) == (expected["heads"], expected["deprels"])


@pytest.mark.parametrize("frozen", [True, False])
def test_training_with_new_words_and_relations(archive, corpus, new_corpus, frozen, tmp_path):
    """Frozen, it is the same in every bit; otherwise it learns."""
    config = configuration(
        new_corpus,
        syntactic_parser=pretrained(archive),
        frozen_parser=frozen,
        estimator="spigot",
        syntactic_loss_weight=0.0 if frozen else 1.0,
        trainer={"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 3},
    )
    config["vocabulary"] = {"type": "extend", "directory": str(archive)}
    config["include_in_archive"] = ["syntactic_parser.tar.gz"]
    copied = shutil.copyfile(archive, tmp_path / "parser.tar.gz")
    config = json.loads(json.dumps(config).replace(str(archive), str(copied)))
    train_model(Params(copy.deepcopy(config)), str(tmp_path / "run"))
    # The model's archive does not need the parser's any more.
    copied.unlink()
    shutil.move(tmp_path / "run" / "model.tar.gz", tmp_path / "model.tar.gz")
    shutil.rmtree(tmp_path / "run")
    model = load_archive(tmp_path / "model.tar.gz").model
    before = load_archive(archive).model.state_dict()
    after = model.syntactic_parser.state_dict()
    assert after.keys() == before.keys()
    embedding = "text_encoder.text_field_embedder.token_embedder_tokens.weight"
    assert len(after[embedding]) > len(before[embedding])  # New words have vectors.
    old = {name: value[: len(before[name])] if name == embedding else value for name, value in after.items()}
    same = {name for name, value in before.items() if torch.equal(old[name], value)}
    if frozen:
        assert same == before.keys()
    else:
        head = {"syntactic_head.arc_scorer.attention._weight_matrix", "syntactic_head.labeler.bilinear.weight"}
        assert same.isdisjoint({*head, embedding})
    assert model.eval().forward_on_instances(read(new_corpus))[0]["heads"].count(0) == 1


def test_frozen_means_without_dropout_and_gradients(archive, corpus):
    parser = build(
        corpus,
        vocab=extended(archive, corpus),
        syntactic_parser=pretrained(archive),
        frozen_parser=True,
        dropout=0.3,
        syntactic_loss_weight=0.0,
    )
    model = parser.model.train()
    assert model.training and not any(module.training for module in model.syntactic_parser.modules())
    trees = [parser.forward()["tree"] for _ in range(3)]
    assert all(torch.equal(tree, trees[0]) for tree in trees)
    assert all(torch.equal(tree, parser.model.eval().forward(**parser.batch())["tree"]) for tree in trees)
    model.train()
    parser.forward()["loss"].backward()
    assert all(parameter.grad is None for parameter in model.syntactic_parser.parameters())
    assert model.composer.of_head.weight.grad.any()


def test_not_frozen_means_with_dropout(archive, corpus):
    parser = build(corpus, vocab=extended(archive, corpus), syntactic_parser=pretrained(archive))
    parser.model.train()
    losses = {parser.forward()["loss"].item() for _ in range(3)}
    assert len(losses) == 3


class TestRefused:
    def test_a_vocabulary_in_another_order(self, archive, new_corpus):
        with pytest.raises(ConfigurationError) as error:
            build(new_corpus, syntactic_parser=pretrained(archive))
        message = str(error.value)
        assert "this model's vocabulary has 'dep' at 2 of namespace 'arc_relations', the vocabulary of" in message
        assert '"vocabulary": {"type": "extend", "directory": <the parser\'s archive>}' in message

    def test_a_vocabulary_without_a_common_word(self, corpus, new_corpus):
        """As it was built in Python, the parser's was not extended: every word would stand for another one."""
        embedder = build(corpus).model.text_encoder.text_field_embedder
        own = Vocabulary.from_instances(read(new_corpus))
        words = Vocabulary(counter={"tokens": {"entirely": 1, "different": 1}})
        params = Params(parser_keys())
        params.pop("type")
        syntactic = SyntacticParser.from_params(params, vocab=words)
        with pytest.raises(ConfigurationError, match="begins with the parser's"):
            SyntacticThenSemantic(own, embedder, syntactic_parser=syntactic)

    def test_an_archive_of_another_model(self, corpus, tmp_path):
        train_model(Params(configuration(corpus, trainer={"num_epochs": 1})), str(tmp_path))
        archive = tmp_path / "model.tar.gz"
        with pytest.raises(ConfigurationError, match="syntactic_parser is a SyntacticThenSemantic; valid: a model of"):
            build(corpus, vocab=extended(archive, corpus), syntactic_parser=pretrained(archive))

    @pytest.mark.parametrize("syntax", ["gold", "none"])
    def test_a_parser_that_is_not_asked(self, corpus, syntax):
        with pytest.raises(ConfigurationError, match=f"syntactic_parser is of no use where syntax is '{syntax}'"):
            build(corpus, syntax=syntax, syntactic_parser=parser_keys())

    def test_frozen_without_a_parser(self, corpus):
        with pytest.raises(ConfigurationError, match="frozen_parser needs a syntactic_parser"):
            build(corpus, frozen_parser=True)


class TestTheOneInTheFixtures:
    """Made by an earlier version: its archive, and what it says, hold."""

    ARCHIVE = FIXTURES / "models" / "syntactic_parser.tar.gz"

    def test_it_loads_and_parses(self):
        archive = load_archive(self.ARCHIVE)
        instances = list(archive.validation_dataset_reader.read(str(FIXTURES / "graphs" / "dev.conllu")))
        model = Parser(archive.model, instances)
        model.forward()
        metrics = model.model.get_metrics()
        assert metrics["uas"] > 0.92 and metrics["las"] > 0.9
        (sentence,) = model.model.forward_on_instances(instances[:1])
        assert set(sentence) == {"sentence_id", "words", "heads", "deprels"}

    def test_it_is_small(self):
        assert self.ARCHIVE.stat().st_size < 60_000
