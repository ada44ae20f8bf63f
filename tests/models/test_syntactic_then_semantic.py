"""What the parser computes, learns, says, and refuses."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Instance
from allennlp.models import Model, load_archive

from tests.models.parsers import Parser, build, parser_keys, read, write_conllu_file
from tests.training.small import TREES, configuration, write_corpus

GRAPH_METRICS = {
    "labeled_f1",
    "unlabeled_f1",
    *(f"_{kind}_{name}" for kind in ("labeled", "unlabeled") for name in ("precision", "recall", "exact_match")),
}
# Outside training only.
OFFICIAL_METRICS = {
    "elas",
    "eulas",
    *(f"_{kind}_{name}" for kind in ("elas", "eulas") for name in ("precision", "recall")),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.fixture(scope="module")
def graphs_only(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "graphs.conllu", with_trees=False)


@pytest.fixture(scope="module")
def trees_only(corpus: Path) -> Path:
    path = corpus.with_name("trees.conllu")
    rows = (line.split("\t") for line in corpus.read_text().split("\n"))
    path.write_text("\n".join("\t".join([*row[:8], "_", "_"]) if len(row) > 1 else row[0] for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory) -> Model:
    """Trained until it knows the corpus by heart."""
    trainer = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 50}
    return train(configuration(corpus, trainer=trainer), tmp_path_factory.mktemp("trained")).eval()


def gradients(parser: Parser, instances: List[Instance], scale: float = 1.0) -> Dict[str, torch.Tensor]:
    """Of one training step on a batch of these; parameters without one are left out."""
    parser.model.train().zero_grad()
    (scale * parser.forward(instances)["loss"]).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in parser.model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def train(config: Dict[str, Any], directory: Path) -> Model:
    model = train_model(Params(copy.deepcopy(config)), str(directory), force=True)
    assert model is not None
    return model


class TestOutput:
    @pytest.mark.parametrize(
        "keys, more, more_in_evaluation, readable",
        [
            ({}, {"tree"}, {"labels", "heads", "relations"}, {"heads", "deprels"}),
            ({"syntactic_parser": parser_keys()}, {"tree"}, {"labels", "heads", "relations"}, {"heads", "deprels"}),
            ({"syntax": "gold"}, {"tree"}, {"labels", "heads", "relations"}, {"heads", "deprels"}),
            ({"syntax": "none"}, set(), {"labels"}, set()),
        ],
        ids=["shared", "separate", "gold", "none"],
    )
    def test_keys(self, corpus, keys, more, more_in_evaluation, readable):
        parser = build(corpus, **keys)
        output = parser.forward()
        assert set(output) == {"metadata", "arc_scores", "loss"} | more | more_in_evaluation
        sentences = parser.model.make_output_human_readable(output)
        assert set(sentences) == {"sentence_id", "words", "tops", "arcs"} | readable
        assert {len(values) for values in sentences.values()} == {len(TREES)}
        parser.model.train()
        assert set(parser.forward()) == {"metadata", "arc_scores", "loss"} | more

    def test_keys_without_gold(self, corpus):
        parser = build(corpus)
        for instance in parser.instances:
            for name in ("head_indices", "head_tags", "arc_tags", "tops"):
                del instance.fields[name]
        output = parser.forward()
        assert set(output) == {"metadata", "arc_scores", "tree", "labels", "heads", "relations"}
        metrics = parser.model.get_metrics(reset=True)
        assert metrics["labeled_f1"] == 0.0 and "uas" not in metrics

    def test_readable(self, corpus):
        parser = build(corpus)
        # So that about half of the arcs are there.
        output = parser.forward()
        legal = output["arc_scores"] != 0
        bias = parser.model.graph_head.arc_scorer.attention._bias
        bias.data -= output["arc_scores"][legal].median()
        output = parser.forward()
        sentences = parser.model.make_output_human_readable(output)
        assert sentences["words"] == [[word for word, _ in tree] for tree in TREES]
        assert sentences["sentence_id"] == [str(number) for number in range(len(TREES))]
        num_arcs = 0
        for b, words in enumerate(sentences["words"]):
            scores = output["arc_scores"][b]
            expected = {(d, h) for d in range(1, len(words) + 1) for h in range(len(words) + 1) if scores[d, h] > 0}
            arcs = {(arc["dependent"], arc["head"]): arc for arc in sentences["arcs"][b]}
            assert arcs.keys() | {(top, 0) for top in sentences["tops"][b]} == expected
            assert len(arcs) == len(sentences["arcs"][b])
            for (d, h), arc in arcs.items():
                assert arc["probability"] == pytest.approx(scores[d, h].sigmoid().item(), abs=1e-4)
                assert arc["label"] in ("dep", "obj", "next")
            num_arcs += len(arcs)
            # The tree that the graph was conditioned on: `z[d, h]` is 1 for the head of each word.
            z = output["tree"][b, 1 : len(words) + 1]
            assert z.argmax(-1).tolist() == sentences["heads"][b]
            assert z.sum() == len(words)
            assert len(sentences["deprels"][b]) == len(words)
            assert set(sentences["deprels"][b]) <= {"root", "dep", "obj"}
        assert num_arcs > 5

    def test_a_sentence_alone_and_in_a_batch(self, corpus):
        parser = build(corpus)
        together = parser.model.forward_on_instances(parser.instances)
        for instance, expected in zip(parser.instances, together):
            alone = parser.model.forward_on_instance(instance)
            assert alone.keys() == expected.keys()
            assert alone == expected

    def test_a_relaxed_tree_is_read_as_a_tree(self, corpus):
        """Each word's most likely head would be a cycle in some sentences."""
        parser = build(corpus, estimator={"type": "marginals", "relaxed_evaluation": True})
        weight = parser.model.syntactic_head.arc_scorer.attention._weight_matrix
        cyclic = 0
        for seed in range(5):
            torch.manual_seed(seed)
            torch.nn.init.normal_(weight, std=1.0)
            output = parser.forward()
            assert ((output["tree"] > 0.01) & (output["tree"] < 0.99)).any()
            for z, heads, instance in zip(output["tree"], output["heads"].tolist(), parser.instances):
                n = len(instance["tokens"])
                assert heads[1 : n + 1].count(0) == 1
                assert all(_reaches_root(heads, word) for word in range(1, n + 1))
                likeliest = [-1, *z[1 : n + 1].argmax(-1).tolist()]
                cyclic += not all(_reaches_root(likeliest, word) for word in range(1, n + 1))
        assert cyclic

    def test_gold_syntax_is_what_is_read(self, corpus):
        parser = build(corpus, syntax="gold")
        sentences = parser.model.make_output_human_readable(parser.forward())
        assert sentences["heads"] == [[head for _, head in tree] for tree in TREES]
        assert sentences["deprels"][0] == ["dep", "root"]


def _reaches_root(heads: List[int], word: int) -> bool:
    for _ in heads:
        if word == 0:
            return True
        word = heads[word]
    return False


class TestLoss:
    def test_is_that_of_the_docstring(self, corpus):
        parser = build(corpus, syntactic_loss_weight=0.3)
        model = parser.model.train()
        batch = parser.batch()
        output = model(**batch)
        states, mask = model.text_encoder(batch["tokens"])
        composed = model.composer(states, output["tree"])
        scores = model.graph_head.arc_scorer(composed)
        losses = []
        for b, instance in enumerate(parser.instances):
            graph = instance["metadata"]["graph"]
            n, loss = len(graph), torch.zeros(())
            gold = {**graph.arcs, **{(top, 0): None for top in graph.tops}}
            for d in range(1, n + 1):
                for h in range(n + 1):
                    if h == d:
                        continue
                    sign = 1 if (d, h) in gold else -1
                    loss = loss - torch.nn.functional.logsigmoid(sign * scores[b, d, h])
                    if h > 0 and (d, h) in gold:
                        index = tuple(torch.tensor([x]) for x in (b, d, h))
                        label = model.vocab.get_token_index(gold[d, h], "arc_relations") - 2
                        loss = loss - model.graph_head.labeler(composed, index)[0].log_softmax(-1)[label]
            losses.append(loss)
        parser_scores = model.syntactic_head(states)
        heads, relations = (torch.nn.functional.pad(batch[name], (1, 0)) for name in ("head_indices", "head_tags"))
        heads = torch.where(mask & (torch.arange(mask.size(1)) > 0), heads, -1)
        syntactic = model.syntactic_head.loss(states, parser_scores, mask, heads, relations)
        expected = torch.stack(losses).mean() + 0.3 * syntactic.mean()
        torch.testing.assert_close(output["loss"], expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("estimator", ["spigot", {"type": "spigot", "num_steps": 3}, "spigot_eg", "marginals"])
    def test_the_surrogate_belongs_to_the_loss_of_one_sentence(self, corpus, estimator):
        """Batch size and loss scale change nothing of what the loss of one sentence teaches the arc scorer."""
        parser = build(corpus, estimator=estimator, syntactic_loss_weight=0.0)
        parser.model.double()
        together = gradients(parser, parser.instances)
        scaled = gradients(parser, parser.instances, scale=65536.0)
        alone = [gradients(parser, [instance]) for instance in parser.instances]
        names = [name for name in together if name.startswith("syntactic_head.arc_scorer.") and "_bias" not in name]
        assert len(names) >= 5
        for name in names:
            mean = sum(each.get(name, torch.zeros_like(together[name])) for each in alone) / len(alone)
            torch.testing.assert_close(together[name], mean, rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(scaled[name] / 65536.0, together[name], rtol=1e-6, atol=1e-12)

    def test_steps_of_the_estimator_are_not_counted_in_the_metrics(self, corpus):
        parser = build(corpus, estimator={"type": "spigot_ce", "num_steps": 3})
        parser.model.train()
        parser.forward()
        gold_arcs = sum(len(i["metadata"]["graph"].arcs) + 1 for i in parser.instances)
        assert parser.model._graph_f1._counts[[1, 4]].tolist() == [gold_arcs, len(parser.instances)]

    def test_the_model_learns(self, corpus, trained):
        """The corpus by heart, its trees and its graphs."""
        trained.get_metrics(reset=True)
        Parser(trained, read(corpus)).forward()
        metrics = trained.get_metrics(reset=True)
        assert metrics["labeled_f1"] > 0.95
        assert metrics["uas"] > 0.95 and metrics["las"] > 0.95


class TestMetrics:
    def test_keys(self, corpus):
        parser = build(corpus)
        parser.forward()
        assert set(parser.model.get_metrics()) == GRAPH_METRICS | OFFICIAL_METRICS | {"uas", "las", "tree_depth"}
        parser.model.train()
        parser.forward()
        assert set(parser.model.get_metrics(reset=True)) == GRAPH_METRICS | {
            "uas",
            "las",
            "tree_depth",
            "_arcs_changed",
            "_pull_back_distance",
            "_surrogate_nonzero",
            "_score_rms",
            "_mean_score_rms",
        }

    @pytest.mark.parametrize("syntax", ["none", "gold"])
    def test_keys_without_predicted_syntax(self, corpus, syntax):
        parser = build(corpus, syntax=syntax)
        parser.forward()
        assert set(parser.model.get_metrics()) == GRAPH_METRICS | OFFICIAL_METRICS
        parser.model.train()
        assert set(parser.model.get_metrics()) == GRAPH_METRICS

    def test_values_are_those_of_the_readable_output(self, corpus):
        parser = build(corpus)
        output = parser.forward()
        legal = output["arc_scores"] != 0
        parser.model.graph_head.arc_scorer.attention._bias.data -= output["arc_scores"][legal].median()
        parser.model.get_metrics(reset=True)
        sentences = parser.model.make_output_human_readable(parser.forward())
        metrics = parser.model.get_metrics(reset=True)
        labeled, unlabeled, attached, total = Counter(), Counter(), 0, 0
        for b, instance in enumerate(parser.instances):
            graph = instance["metadata"]["graph"]
            arcs = {(arc["dependent"], arc["head"]): arc["label"] for arc in sentences["arcs"][b]}
            predicted = {**arcs, **{(top, 0): "root" for top in sentences["tops"][b]}}
            gold = {**graph.arcs, **{(top, 0): "root" for top in graph.tops}}
            labeled.update(predicted=len(predicted), gold=len(gold), both=len(predicted.items() & gold.items()))
            unlabeled.update(both=len(predicted.keys() & gold.keys()))
            attached += sum(p == g for p, g in zip(sentences["heads"][b], graph.heads))
            total += len(graph)
        sizes = labeled["predicted"] + labeled["gold"]
        assert 0 < labeled["both"] < unlabeled["both"]
        assert metrics["labeled_f1"] == pytest.approx(2 * labeled["both"] / sizes)
        assert metrics["unlabeled_f1"] == pytest.approx(2 * unlabeled["both"] / sizes)
        assert metrics["_labeled_recall"] == pytest.approx(labeled["both"] / labeled["gold"])
        assert metrics["uas"] == pytest.approx(attached / total)
        assert set(parser.model.get_metrics().values()) == {0.0}


class TestWhatFlowsIntoSyntax:
    SYNTAX = {
        "shared": ({}, "syntactic_head.arc_scorer"),
        "separate": ({"syntactic_parser": parser_keys()}, "syntactic_parser."),
    }

    @pytest.mark.parametrize("where", SYNTAX)
    def test_spigot_alone_moves_the_parser(self, corpus, where):
        keys, prefix = self.SYNTAX[where]
        parser = build(corpus, syntactic_loss_weight=0.0, **keys)
        moved = {name for name in gradients(parser, parser.instances) if name.startswith(prefix)}
        assert any("arc_scorer.dependent" in name for name in moved)
        if where == "separate":
            assert any("text_encoder.encoder" in name for name in moved)
        # Relations are of no use to the graph.
        assert not any("labeler" in name for name in moved)

    @pytest.mark.parametrize("where", SYNTAX)
    def test_a_pipeline_lets_nothing_through(self, corpus, where):
        keys, prefix = self.SYNTAX[where]
        parser = build(corpus, estimator="pipeline", syntactic_loss_weight=0.0, **keys)
        found = gradients(parser, parser.instances)
        assert not any(name.startswith(prefix) for name in found)
        assert any(name.startswith("graph_head.arc_scorer") for name in found)

    def test_a_pipeline_without_weight_stays_where_it_is(self, corpus, tmp_path):
        config = configuration(corpus, estimator="pipeline", syntactic_loss_weight=0.0)
        before = build(corpus, **{k: config["model"][k] for k in ("estimator", "syntactic_loss_weight")}).model
        torch.save(before.state_dict(), tmp_path / "before.th")
        config["model"]["initializer"] = {
            "regexes": [[".*", {"type": "pretrained", "weights_file_path": str(tmp_path / "before.th")}]]
        }
        after = train(config, tmp_path / "run").state_dict()
        head = {name: value for name, value in before.state_dict().items() if name.startswith("syntactic_head.")}
        assert head and all(torch.equal(after[name], value) for name, value in head.items())
        assert not torch.equal(after["composer.of_head.weight"], before.composer.of_head.weight)

    def test_the_supervised_loss_trains_the_parser_of_a_pipeline(self, corpus):
        parser = build(corpus, estimator="pipeline")
        found = gradients(parser, parser.instances)
        assert {"syntactic_head.labeler.bilinear.weight", "syntactic_head.arc_scorer.attention._weight_matrix"} <= set(
            found
        )

    def test_the_weight_scales_the_supervised_gradient(self, corpus):
        name = "syntactic_head.arc_scorer.attention._weight_matrix"
        one, three = (
            gradients(parser, parser.instances)[name]
            for parser in (build(corpus, estimator="pipeline", syntactic_loss_weight=w) for w in (1.0, 3.0))
        )
        torch.testing.assert_close(three, 3 * one)


class TestWeightSchedule:
    SCHEDULE = {"type": "linear", "start": 1.0, "end": 0.0, "num_steps": 4}

    def test_the_step_survives_save_and_load(self, corpus, tmp_path):
        # Two epochs of two batches; validation takes no step.
        train(configuration(corpus, syntactic_loss_weight={**self.SCHEDULE, "num_steps": 8}), tmp_path)
        model = load_archive(tmp_path / "model.tar.gz").model
        assert model.syntactic_loss_weight.step == 4
        assert model.syntactic_loss_weight() == 0.5

    def test_from_supervised_to_purely_latent(self, corpus):
        parser = build(corpus, syntactic_loss_weight=self.SCHEDULE, estimator="pipeline")
        labeler = "syntactic_head.labeler.bilinear.weight"
        norms = [gradients(parser, parser.instances).get(labeler, torch.zeros(())).norm() for _ in range(6)]
        torch.testing.assert_close(torch.stack(norms) / norms[0], torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0, 0.0]))

    def test_a_batch_of_trees_is_a_step_too(self, corpus, trees_only):
        parser = build(corpus, syntactic_loss_weight=self.SCHEDULE)
        parser.model.train()
        parser.forward(read(trees_only))
        parser.forward()
        assert parser.model.syntactic_loss_weight.step == 2


class TestTwoCorpora:
    """A sentence of either kind in its own batch."""

    def test_trees_train_syntax_only(self, corpus, trees_only):
        parser = build(corpus)
        found = gradients(parser, read(trees_only))
        assert any(name.startswith("syntactic_head.arc_scorer") for name in found)
        assert not any(name.startswith(("graph_head", "composer")) for name in found)

    def test_graphs_train_both(self, corpus, graphs_only):
        parser = build(corpus)
        found = gradients(parser, read(graphs_only))
        assert any(name.startswith("graph_head.arc_scorer") for name in found)
        assert any(name.startswith("syntactic_head.arc_scorer") for name in found)
        assert not any(name.startswith("syntactic_head.labeler") for name in found)

    def test_evaluation_of_either(self, corpus, trees_only, graphs_only):
        parser = build(corpus)
        output = parser.forward(read(trees_only))
        assert output["loss"] > 0
        metrics = parser.model.get_metrics(reset=True)
        assert metrics["_labeled_recall"] == 0.0 and metrics["uas"] > 0
        parser.forward(read(graphs_only))
        assert {"uas", "las"}.isdisjoint(parser.model.get_metrics(reset=True))

    @pytest.mark.parametrize("keys", [{"syntactic_loss_weight": 0.0}, {"syntax": "none"}])
    def test_a_batch_that_teaches_nothing(self, corpus, trees_only, keys):
        parser = build(corpus, **keys)
        parser.model.train()
        with pytest.raises(ConfigurationError) as error:
            parser.forward(read(trees_only))
        assert "neither gold graphs nor gold trees with a positive syntactic_loss_weight" in str(error.value)
        assert "'0', '1'" in str(error.value)

    def test_a_whole_run_on_graphs_alone(self, graphs_only, tmp_path):
        model = train(configuration(graphs_only, syntactic_loss_weight=0.0), tmp_path)
        assert self.label_of_a_likely_arc(model, graphs_only) in ("dep", "obj", "next")

    def test_a_label_where_the_vocabulary_has_none(self, trees_only):
        """Whatever is predicted has a name."""
        assert self.label_of_a_likely_arc(build(trees_only).model, trees_only) == "@@UNKNOWN@@"

    @staticmethod
    def label_of_a_likely_arc(model, path) -> str:
        parser = Parser(model.eval(), read(path))
        model.graph_head.arc_scorer.attention._bias.data += 100.0
        (arc,) = (arc for arc in model.forward_on_instance(parser.instances[0])["arcs"] if arc["head"] == 2)
        return arc["label"]


class TestUnknownLabels:
    def test_they_count_as_errors(self, corpus, trained, tmp_path):
        """A label that training lacks, of the tree and of the graph."""
        renamed = tmp_path / "renamed.conllu"
        renamed.write_text(corpus.read_text().replace("obj", "unheard"))
        model = copy.deepcopy(trained)
        scores = {}
        for path in (corpus, renamed):
            model.get_metrics(reset=True)
            loss = Parser(model, read(path)).forward()["loss"]
            assert loss.isfinite()
            scores[path] = model.get_metrics(reset=True)
        known, unknown = scores.values()
        assert unknown["uas"] == known["uas"] and unknown["unlabeled_f1"] == known["unlabeled_f1"]
        total = sum(len(tree) for tree in TREES)
        lost = sum(0 < head < index for tree in TREES for index, (_, head) in enumerate(tree, 1))
        assert known["las"] - unknown["las"] == pytest.approx(lost / total, abs=1 / total)
        assert known["labeled_f1"] - unknown["labeled_f1"] > 0.1
        # Whoever predicts none of them has no gradient from them either.
        model.train()
        parser = Parser(model, read(renamed))
        assert all(value.isfinite().all() for value in gradients(parser, parser.instances).values())


class TestOneWord:
    @pytest.mark.parametrize("structure", ["projective_tree", "nonprojective_tree", "single_head", "arc_graph"])
    def test_one_word(self, tmp_path, structure):
        words = [[("Stop", 0, "root", "0:root")], [("No", 0, "root", "0:root")]]
        parser = build(write_conllu_file(tmp_path / "one.conllu", words), structure=structure)
        found = gradients(parser, parser.instances)
        assert all(value.isfinite().all() for value in found.values())
        assert any(name.startswith("graph_head.arc_scorer") for name in found)
        sentences = parser.model.eval().make_output_human_readable(parser.forward())
        assert sentences["words"] == [["Stop"], ["No"]]
        if structure != "arc_graph":
            assert sentences["heads"] == [[0], [0]]
        assert sentences["arcs"] == [[], []]
