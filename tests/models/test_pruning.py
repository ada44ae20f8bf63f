"""Arcs that a first-order model, trained before, finds improbable."""

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

from spigot_allennlp.functional.trees import arcs_from_heads, legal_arcs
from tests.models.parsers import build, parser_keys, read
from tests.training.small import configuration, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


@pytest.fixture(scope="module")
def archives(corpus: Path, tmp_path_factory) -> Dict[str, Path]:
    """Half-trained, so that gold arcs are among those that they would remove."""
    found = {}
    trainer = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 3}
    for name, model in (
        ("trees", parser_keys()),
        ("graphs", configuration(corpus)["model"]),
        ("graphs without syntax", configuration(corpus, syntax="none")["model"]),
        ("hinge", configuration(corpus, graph_head={"loss": "hinge"})["model"]),
    ):
        directory = tmp_path_factory.mktemp("pruner")
        train_model(Params({**configuration(corpus, trainer=trainer), "model": model}), str(directory), force=True)
        found[name] = directory / "model.tar.gz"
    return found


def pruner(archive: Path, threshold: float = 0.15) -> Dict[str, Any]:
    return {"model": {"type": "from_archive", "archive_file": str(archive)}, "threshold": threshold}


def kept_by(archive: Path, parser, threshold: float, of_tree: bool) -> torch.Tensor:
    """By the archive itself."""
    model = load_archive(archive).model.eval()
    scores, mask = model.score_arcs(parser.batch()["tokens"])
    if not of_tree:
        return (scores.sigmoid() >= threshold) & legal_arcs(mask) | (scores > 0) & legal_arcs(mask)
    kept = (model.structure.marginals(scores, mask) >= threshold) | (model.structure.argmax(scores, mask) > 0)
    return kept & legal_arcs(mask)


@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.9])
@pytest.mark.parametrize("shared", [True, False])
def test_trees(archives, corpus, threshold, shared):
    keys = pruner(archives["trees"], threshold)
    keys = {"syntactic_head": {"pruner": keys}} if shared else {"syntactic_parser": parser_keys({"pruner": keys})}
    parser = build(corpus, **keys)
    kept = kept_by(archives["trees"], parser, threshold, of_tree=True)
    output = parser.forward()
    predicted = arcs_from_heads(output["heads"]) > 0
    assert (predicted & ~kept).sum() == 0
    gold = torch.zeros_like(kept)
    for b, instance in enumerate(parser.instances):
        for d, h in enumerate(instance["metadata"]["graph"].heads, 1):
            gold[b, d, h] = True
    metrics = parser.model.get_metrics(reset=True)
    lengths = torch.tensor([len(instance["tokens"]) for instance in parser.instances])
    assert metrics["_syntactic_pruning_density"] == pytest.approx(kept.sum().item() / (lengths**2).sum().item())
    assert metrics["_syntactic_pruning_recall"] == pytest.approx(((gold & kept).sum() / gold.sum()).item())
    assert output["loss"].isfinite()
    if threshold == 0.0:
        assert metrics["_syntactic_pruning_recall"] == 1.0 == metrics["_syntactic_pruning_density"]
    elif threshold == 0.9:
        # What it tests: gold arcs are lost.
        assert metrics["_syntactic_pruning_recall"] < 1.0
    # In training, gold arcs are not, and everything stays finite.
    parser.model.train()
    head = parser.model.syntactic_head if shared else parser.model.syntactic_parser.syntactic_head
    scores = torch.zeros(kept.shape)
    pruned, _ = head.prune(scores, parser.batch()["tokens"], torch.where(gold.any(-1), gold.int().argmax(-1), -1))
    assert torch.equal(pruned.isneginf(), legal_arcs_of(parser) & ~kept & ~gold)
    parser.forward()["loss"].backward()
    for name, parameter in parser.model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def legal_arcs_of(parser) -> torch.Tensor:
    return legal_arcs(parser.model.text_encoder(parser.batch()["tokens"])[1])


@pytest.mark.parametrize("estimator", ["spigot", "marginals", "spigot_ce", "perturb_and_map"])
def test_estimators(archives, corpus, estimator):
    parser = build(corpus, syntactic_head={"pruner": pruner(archives["trees"])}, estimator=estimator)
    parser.model.train()
    parser.forward()["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in parser.model.parameters())


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
@pytest.mark.parametrize("name", ["graphs", "graphs without syntax"])
def test_graphs(archives, corpus, loss, name):
    parser = build(corpus, graph_head={"pruner": pruner(archives[name], 0.33), "loss": loss})
    kept = kept_by(archives[name], parser, 0.33, of_tree=False)
    legal = legal_arcs_of(parser)
    assert 0 < kept.sum() < legal.sum()
    # However much the model likes them.
    parser.model.graph_head.arc_scorer.attention._bias.data += 1000.0
    output = parser.forward()
    assert torch.equal(output["labels"] >= 0, kept)
    assert output["loss"].isfinite() and (output["arc_scores"][legal & ~kept] == -torch.inf).all()
    metrics = parser.model.get_metrics()
    assert metrics["_pruning_density"] == pytest.approx((kept.sum() / legal.sum()).item())
    assert 0 < metrics["_pruning_recall"] < 1
    parser.model.make_output_human_readable(output)
    parser.model.train()
    output = parser.forward()
    gold = output["arc_scores"] == -torch.inf
    output["loss"].backward()
    assert output["loss"].isfinite() and gold.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in parser.model.parameters())


def test_the_pruner_stays_as_it_is(archives, corpus):
    parser = build(
        corpus,
        syntactic_head={"pruner": pruner(archives["trees"])},
        graph_head={"pruner": pruner(archives["graphs"])},
    )
    model = parser.model.train()
    for part in (model.graph_head.pruner, model.syntactic_head.pruner):
        assert not any(module.training for module in part.model.modules())
        assert not any(parameter.requires_grad for parameter in part.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items() if "pruner" in name}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    parser.forward()["loss"].backward()
    optimizer.step()
    assert before and all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_syntactic_parser(archives, corpus, tmp_path):
    model = parser_keys({"pruner": pruner(archives["trees"]), "loss": "hinge"})
    config = {**configuration(corpus, trainer={"num_epochs": 1}), "model": model}
    train_model(Params(config), str(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < metrics["validation__pruning_recall"] <= 1 and 0 < metrics["training__pruning_density"] < 1
    (first, *_) = load_archive(tmp_path / "model.tar.gz").model.eval().forward_on_instances(read(corpus))
    assert first["heads"].count(0) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_an_archive_without_that_of_the_pruner(archives, corpus, alone, tmp_path):
    original = shutil.copyfile(archives["trees"], tmp_path / "original.tar.gz")
    model = parser_keys({"pruner": pruner(original)})
    config = configuration(corpus, syntactic_parser=copy.deepcopy(model), trainer={"num_epochs": 1})
    name = "syntactic_parser.syntactic_head.pruner.model.tar.gz"
    if alone:
        config["model"], name = model, "syntactic_head.pruner.model.tar.gz"
    trained = train_model(Params({**config, "include_in_archive": [name]}), str(tmp_path / "run"))
    # One copy, under the name that the whole model's config gives it.
    assert {path.name for path in (tmp_path / "run").glob("*.tar.gz")} == {"model.tar.gz", name}
    original.unlink()
    shutil.move(tmp_path / "run" / "model.tar.gz", tmp_path / "moved.tar.gz")
    shutil.rmtree(tmp_path / "run")
    found = load_archive(tmp_path / "moved.tar.gz").model.eval().forward_on_instances(read(corpus))
    expected = trained.eval().forward_on_instances(read(corpus))
    assert [sentence["heads"] for sentence in found] == [sentence["heads"] for sentence in expected]


@pytest.mark.parametrize(
    "key, name, message",
    [
        (
            "syntactic_head",
            "graphs",
            "the model of syntactic_head.pruner is a SyntacticThenSemantic; valid: 'from_archive'",
        ),
        (
            "graph_head",
            "trees",
            "the model of graph_head.pruner is a SyntacticParser whose arcs have no probabilities",
        ),
        ("graph_head", "hinge", "trained with the graph_head.loss 'cross_entropy'"),
    ],
)
def test_other_models(archives, corpus, key, name, message):
    with pytest.raises(ConfigurationError) as error:
        build(corpus, **{key: {"pruner": pruner(archives[name])}})
    assert message in str(error.value)


def test_thresholds(archives, corpus):
    with pytest.raises(ConfigurationError, match="threshold is 1.5; valid: a probability below 1"):
        build(corpus, graph_head={"pruner": pruner(archives["graphs"], 1.5)})


@pytest.mark.parametrize("key, name", [("syntactic_head", "trees"), ("graph_head", "graphs")])
def test_another_vocabulary(archives, corpus, key, name):
    words = Vocabulary.from_instances(reversed(read(corpus)))
    words._index_to_token["tokens"][2], words._index_to_token["tokens"][3] = "unheard", "of"
    with pytest.raises(ConfigurationError, match=f"the vocabulary of {key}.pruner has"):
        build(corpus, vocab=words, **{key: {"pruner": pruner(archives[name])}})
