"""Configs and data that cannot work: one message that says what would."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.models import Model

from tests.models.parsers import build, parser_keys, read
from tests.training.small import configuration, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"syntax": "golden"}, "syntax is 'golden'; valid: 'latent', 'gold', 'none'"),
        ({"syntactic_loss_weight": -0.5}, "weight is -0.5; valid: a number >= 0"),
        (
            {"syntax_weight": 0.5},
            "SyntacticThenSemantic has no key 'syntax_weight'; valid: ddp_accelerator, ",
        ),
        ({"estimator": "spigott"}, "spigott not in acceptable choices"),
        ({"estimator": {"type": "spigot", "step": 0.5}}, "Spigot has no key 'step'; valid: center_gradient, "),
        ({"structure": "tree"}, "tree not in acceptable choices"),
        ({"structure": {"type": "projective_tree", "projection": "fast"}}, "projection is 'fast'; valid: 'exact'"),
        ({"syntactic_head": {"arc_scorer": {"dim": 3}}}, "BiaffineArcScorer has no key 'dim'; valid: arc_dim, dropout"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_config(corpus, keys, message):
    with pytest.raises(ConfigurationError) as error:
        build(corpus, **keys)
    assert message in str(error.value)


def test_a_structure_that_cannot_do_what_the_estimator_asks(corpus, monkeypatch):
    from spigot_allennlp.structures import ProjectiveTree

    supports = ProjectiveTree.supports
    monkeypatch.setattr(ProjectiveTree, "supports", lambda self, name: name != "project" and supports(self, name))
    with pytest.raises(ConfigurationError) as error:
        build(corpus, estimator="spigot")
    for name in ("spigot", "'project'", "projective_tree"):
        assert name in str(error.value)
    build(corpus, estimator="ste")


def test_an_unknown_key_of_the_parser(corpus):
    vocab = Vocabulary.from_instances(read(corpus))
    with pytest.raises(ConfigurationError) as error:
        Model.from_params(Params(parser_keys(frozen=True)), vocab=vocab)
    message = str(error.value)
    assert "SyntacticParser has no key 'frozen'; valid: " in message
    # Its own keys and those of AllenNLP's models.
    assert "syntactic_head" in message and "regularizer" in message


def test_keys_of_all_models_are_passed_on(corpus):
    params = Params(parser_keys(regularizer={"regexes": [["syntactic_head.*", {"type": "l2", "alpha": 1.0}]]}))
    model = Model.from_params(params, vocab=Vocabulary.from_instances(read(corpus)))
    assert model.get_regularization_penalty() > 0


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gold_syntax_without_gold_trees(corpus, mode):
    parser = build(corpus, syntax="gold")
    for instance in parser.instances:
        del instance.fields["head_indices"], instance.fields["head_tags"]
    parser.model.train(mode == "train")
    with pytest.raises(ConfigurationError) as error:
        parser.forward()
    assert "syntax is 'gold', but these sentences have no gold tree: ['0', '1', '2', '3', '4']" in str(error.value)
    assert "companion file" in str(error.value)


def test_validation_data_without_gold_trees(corpus, tmp_path):
    graphs = write_corpus(tmp_path / "graphs.conllu", with_trees=False)
    config = {**configuration(corpus, syntax="gold"), "validation_data_path": str(graphs)}
    with pytest.raises(ConfigurationError, match="no sentence of the validation data \\(8\\) has trees"):
        train_model(Params(config), str(tmp_path / "run"))


def test_unlabelled_trees(corpus):
    parser = build(corpus)
    for instance in parser.instances:
        del instance.fields["head_tags"]
        metadata = instance["metadata"].metadata
        metadata["graph"] = replace(metadata["graph"], deprels=None)
    output = parser.forward()
    assert output["loss"].isfinite()
    metrics = parser.model.get_metrics()
    assert "uas" in metrics and "las" not in metrics


def test_no_gradient_is_needed_to_predict(corpus):
    parser = build(corpus)
    with torch.inference_mode():
        assert parser.forward()["loss"].isfinite()


def test_predictions_in_training_mode(corpus):
    parser = build(corpus)
    parser.model.train()
    with pytest.raises(ConfigurationError, match=r"call model.eval\(\) first"):
        parser.model.forward_on_instances(parser.instances)
