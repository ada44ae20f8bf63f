"""Parsers that are trained by structured hinge losses, and decode with constraints."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.testing import ModelTestCase

from spigot_allennlp.modules import Relations
from tests.models.parsers import Parser, build, parser_keys, read
from tests.models.test_every_estimator import WITHOUT_GRADIENT
from tests.training.small import configuration, write_corpus

CONSTRAINTS = {"predicate_dim": 6, "deterministic_roles": "observed"}


def heads(loss: str, **graph_head: Any) -> Dict[str, Any]:
    """The keys of the two heads of a model."""
    if loss == "cross_entropy":
        return {"graph_head": graph_head}
    graph_loss = {"type": "hinge", "false_positive_cost": 0.4, "false_negative_cost": 0.6}
    tree_loss = {"type": "hinge", "false_positive_cost": 0.5, "false_negative_cost": 0.5}
    return {"graph_head": {"loss": graph_loss, **graph_head}, "syntactic_head": {"loss": tree_loss}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.fixture(params=["hinge", "cross_entropy"])
def loss(request):
    return request.param


class TestLearning:
    def test_by_heart(self, corpus, loss, tmp_path):
        trainer = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 50}
        config = configuration(corpus, trainer=trainer, **heads(loss, **CONSTRAINTS))
        model = train_model(Params(copy.deepcopy(config)), str(tmp_path)).eval()
        model.get_metrics(reset=True)
        Parser(model, read(corpus)).forward()
        metrics = model.get_metrics()
        assert min(metrics[name] for name in ("labeled_f1", "uas", "las")) > 0.95
        # Each word has one "next"; some have two that are "dep".
        names = [model.vocab.get_token_from_index(i + 2, "arc_relations") for i in range(3)]
        assert dict(zip(names, model.graph_head.deterministic_roles().tolist()))["next"]
        assert not dict(zip(names, model.graph_head.deterministic_roles().tolist()))["dep"]


class TestOutput:
    @pytest.mark.parametrize("seed", range(3))
    def test_constraints_hold(self, corpus, loss, seed):
        parser = build(corpus, **heads(loss, **{**CONSTRAINTS, "deterministic_roles": ["dep", "next", "obj"]}))
        torch.manual_seed(seed)
        # So that arcs abound, of any label.
        parser.model.graph_head.arc_scorer.attention._bias.data += 5.0
        for parameter in parser.model.graph_head.labeler.parameters():
            torch.nn.init.normal_(parameter)
        hinge = parser.model.graph_head.graph_loss.joint
        output = parser.forward()
        sentences = parser.model.make_output_human_readable(output)
        arcs = [arc for sentence in sentences["arcs"] for arc in sentence]
        assert len(arcs) > 20
        for sentence in sentences["arcs"]:
            roles = Counter((arc["head"], arc["label"]) for arc in sentence)
            assert not roles or max(roles.values()) == 1
        assert {*arcs[0]} == {"dependent", "head", "label", "score" if hinge else "probability"}
        # The same, without constraints, breaks them.
        parser.model.graph_head.deterministic_roles = None
        free = parser.model.make_output_human_readable(parser.forward())
        roles = Counter((number, arc["head"], arc["label"]) for number, arcs in enumerate(free["arcs"]) for arc in arcs)
        assert max(roles.values()) > 1

    def test_an_arc_needs_its_predicate(self, corpus, loss):
        parser = build(corpus, **heads(loss, **CONSTRAINTS))
        bias = parser.model.graph_head.predicate_scorer.score.bias
        bias.data.fill_(-1000.0)
        labels = parser.forward()["labels"]
        assert (labels[:, :, 1:] == -1).all()

    def test_the_metrics_are_those_of_the_output(self, corpus, loss):
        parser = build(corpus, **heads(loss, **CONSTRAINTS))
        output = parser.forward()
        found = parser.model.get_metrics(reset=True)["labeled_f1"]
        gold = Relations.gold_graph(
            *(parser.batch()[name] for name in ("arc_tags", "tops")), output["labels"][:, 1:, 0] > -2
        )
        both = ((output["labels"] == gold) & (gold >= 0)).sum()
        assert found == pytest.approx(2 * both.item() / ((gold >= 0).sum() + (output["labels"] >= 0).sum()).item())

    def test_scores_of_arcs_that_are_there(self, corpus):
        output = build(corpus, **heads("hinge")).forward()
        assert torch.equal(output["labels"] >= 0, output["arc_scores"] > 0)


class TestModels(ModelTestCase):
    @pytest.mark.parametrize("constraints", [{}, CONSTRAINTS], ids=["free", "constrained"])
    @pytest.mark.parametrize("estimator", ["spigot", {"type": "spigot_ce", "num_steps": 2}, "marginals"], ids=str)
    def test_train_save_and_load(self, estimator, constraints):
        corpus = write_corpus(self.TEST_DIR / "corpus.conllu")
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps(configuration(corpus, estimator=estimator, **heads("hinge", **constraints))))
        self.ensure_model_can_train_save_and_load(path, gradients_to_ignore=WITHOUT_GRADIENT)
        self.set_up_model(path, corpus, seed=3)
        self.ensure_batch_predictions_are_consistent()

    def test_syntactic_parser(self):
        corpus = write_corpus(self.TEST_DIR / "corpus.conllu")
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps({**configuration(corpus), "model": parser_keys({"loss": "hinge"})}))
        self.ensure_model_can_train_save_and_load(
            path, gradients_to_ignore={"syntactic_head.arc_scorer.attention._bias"}
        )


@pytest.mark.parametrize(
    "keys, message",
    [
        (
            {"graph_head": {"loss": {"type": "hinge", "false_positive_cost": -1}}},
            "false_positive_cost is -1; valid: a number >= 0",
        ),
        (
            {"graph_head": {"loss": {"type": "hinge", "cost": 1}}},
            "HingeGraphLoss has no key 'cost'; valid: false_negative_cost, false_positive_cost",
        ),
        ({"graph_head": {"loss": "svm"}}, "svm not in acceptable choices"),
        ({"graph_head": {"predicates": 3}}, "GraphHead has no key 'predicates'; valid: "),
        (
            {"syntactic_head": {"loss": "hinge"}, "syntax": "none"},
            "syntactic_head is of no use where no tree is latent",
        ),
        (
            {"syntactic_head": {"loss": "hinge"}, "syntactic_parser": parser_keys()},
            "nor beside a syntactic_parser, which has one",
        ),
        ({"graph_head": {"predicate_dim": 0}}, "predicate_dim is 0; valid: an integer >= 1"),
        (
            {"graph_head": {"deterministic_roles": "all"}},
            "deterministic_roles is 'all'; valid: 'observed', or a list of labels",
        ),
        (
            {"graph_head": {"deterministic_roles": ["agent"]}},
            "deterministic_roles has 'agent', which no graph of the data has",
        ),
    ],
)
def test_refusals(corpus, keys, message):
    with pytest.raises(ConfigurationError) as error:
        build(corpus, **keys)
    assert message in str(error.value)
