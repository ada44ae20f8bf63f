"""Parsers that are trained by structured hinge losses, and decode with constraints."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.testing import ModelTestCase

from tests.models.parsers import Parser, build, parser_keys, read
from tests.models.test_every_estimator import WITHOUT_GRADIENT
from tests.training.small import configuration, write_corpus

HINGE = {
    "graph_loss": {"type": "hinge", "false_positive_cost": 0.4, "false_negative_cost": 0.6},
    "syntactic_loss": {"type": "hinge", "false_positive_cost": 0.5, "false_negative_cost": 0.5},
}
CONSTRAINTS = {"predicate_dim": 6, "deterministic_roles": "observed"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.fixture(params=["hinge", "cross_entropy"])
def keys(request):
    return {**CONSTRAINTS, **(HINGE if request.param == "hinge" else {})}


class TestLearning:
    def test_by_heart(self, corpus, keys, tmp_path):
        trainer = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 50}
        config = configuration(corpus, trainer=trainer, **keys)
        model = train_model(Params(copy.deepcopy(config)), str(tmp_path)).eval()
        model.get_metrics(reset=True)
        Parser(model, read(corpus)).forward()
        metrics = model.get_metrics()
        assert min(metrics[name] for name in ("labeled_f1", "uas", "las")) > 0.95
        # Each word has one "next"; some have two that are "dep".
        names = [model.vocab.get_token_from_index(i + 2, "arc_relations") for i in range(3)]
        assert dict(zip(names, model.deterministic_roles().tolist()))["next"]
        assert not dict(zip(names, model.deterministic_roles().tolist()))["dep"]


class TestOutput:
    @pytest.mark.parametrize("seed", range(3))
    def test_constraints_hold(self, corpus, keys, seed):
        parser = build(corpus, **{**keys, "deterministic_roles": ["dep", "next", "obj"]})
        torch.manual_seed(seed)
        # So that arcs abound, of any label.
        parser.model.graph_arc_scorer.attention._bias.data += 5.0
        for parameter in parser.model.graph_labeler.parameters():
            torch.nn.init.normal_(parameter)
        hinge = parser.model.graph_loss.joint
        output = parser.forward()
        sentences = parser.model.make_output_human_readable(output)
        arcs = [arc for sentence in sentences["arcs"] for arc in sentence]
        assert len(arcs) > 20
        for sentence in sentences["arcs"]:
            roles = Counter((arc["head"], arc["label"]) for arc in sentence)
            assert not roles or max(roles.values()) == 1
        assert {*arcs[0]} == {"dependent", "head", "label", "score" if hinge else "probability"}
        # The same, without constraints, breaks them.
        parser.model.deterministic_roles = None
        free = parser.model.make_output_human_readable(parser.forward())
        roles = Counter((number, arc["head"], arc["label"]) for number, arcs in enumerate(free["arcs"]) for arc in arcs)
        assert max(roles.values()) > 1

    def test_an_arc_needs_its_predicate(self, corpus, keys):
        parser = build(corpus, **keys)
        bias = parser.model.predicate_scorer.score.bias
        bias.data.fill_(-1000.0)
        labels = parser.forward()["labels"]
        assert (labels[:, :, 1:] == -1).all()

    def test_the_metrics_are_those_of_the_output(self, corpus, keys):
        parser = build(corpus, **keys)
        output = parser.forward()
        found = parser.model.get_metrics(reset=True)["labeled_f1"]
        gold = parser.model._graph_with_root(
            *(parser.batch()[name] for name in ("arc_tags", "tops")), output["labels"][:, 1:, 0] > -2
        )
        both = ((output["labels"] == gold) & (gold >= 0)).sum()
        assert found == pytest.approx(2 * both.item() / ((gold >= 0).sum() + (output["labels"] >= 0).sum()).item())

    def test_scores_of_arcs_that_are_there(self, corpus):
        output = build(corpus, graph_loss="hinge").forward()
        assert torch.equal(output["labels"] >= 0, output["arc_scores"] > 0)


class TestModels(ModelTestCase):
    @pytest.mark.parametrize("constraints", [{}, CONSTRAINTS], ids=["free", "constrained"])
    @pytest.mark.parametrize("estimator", ["spigot", {"type": "spigot_ce", "num_steps": 2}, "marginals"], ids=str)
    def test_train_save_and_load(self, estimator, constraints):
        corpus = write_corpus(self.TEST_DIR / "corpus.conllu")
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps(configuration(corpus, estimator=estimator, **HINGE, **constraints)))
        self.ensure_model_can_train_save_and_load(path, gradients_to_ignore=WITHOUT_GRADIENT)
        self.set_up_model(path, corpus, seed=3)
        self.ensure_batch_predictions_are_consistent()

    def test_syntactic_parser(self):
        corpus = write_corpus(self.TEST_DIR / "corpus.conllu")
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps({**configuration(corpus), "model": parser_keys(loss="hinge")}))
        self.ensure_model_can_train_save_and_load(path, gradients_to_ignore={"head.arc_scorer.attention._bias"})


@pytest.mark.parametrize(
    "keys, message",
    [
        (
            {"graph_loss": {"type": "hinge", "false_positive_cost": -1}},
            "false_positive_cost is -1; valid: a number >= 0",
        ),
        ({"graph_loss": {"type": "hinge", "cost": 1}}, "Extra parameters passed to HingeGraphLoss: {'cost': 1}"),
        ({"graph_loss": "svm"}, "svm not in acceptable choices"),
        ({"syntactic_loss": "hinge", "syntax": "none"}, "syntactic_loss is of no use where no tree is predicted"),
        (
            {"syntactic_loss": "hinge", "syntactic_parser": parser_keys()},
            "nor beside a syntactic_parser, whose own keys",
        ),
        ({"predicate_dim": 0}, "predicate_dim is 0; valid: an integer >= 1"),
        ({"deterministic_roles": "all"}, "deterministic_roles is 'all'; valid: 'observed', or a list of labels"),
        ({"deterministic_roles": ["agent"]}, "deterministic_roles has 'agent', which no graph of the data has"),
    ],
)
def test_refusals(corpus, keys, message):
    with pytest.raises(ConfigurationError) as error:
        build(corpus, **keys)
    assert message in str(error.value)
