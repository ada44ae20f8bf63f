"""Trees and graphs of different sentences, in batches of their own."""

import json
import random
import statistics
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader, Instance, Vocabulary
from allennlp.models import Model, load_archive

from spigot_allennlp.external_variables import DEFAULTS
from spigot_allennlp.training.grouped_norms import norm_groups
from tests.commands.test_allennlp_commands import CONFIGS, forked_command
from tests.conftest import FIXTURES
from tests.models.parsers import Parser, build, parser_keys
from tests.training.small import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


def read(path: Path, **keys: Any) -> List[Instance]:
    return list(DatasetReader.from_params(Params({"type": "conllu_graphs", **keys})).read(str(path)))


def gradients(parser: Parser, instances: List[Instance]) -> Dict[str, torch.Tensor]:
    """Of one training step; parameters without one are left out."""
    parser.model.train().zero_grad()
    parser.forward(instances)["loss"].backward()
    return {
        name: parameter.grad
        for name, parameter in parser.model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def parts(found: Dict[str, torch.Tensor]) -> set:
    return {name.partition(".")[0] for name in found}


def test_readers_leave_out_what_they_are_told_to(corpus):
    trees, graphs = {"head_indices", "head_tags"}, {"arc_tags", "tops"}
    for keys, expected in [({}, trees | graphs), ({"graphs": False}, trees), ({"trees": False}, graphs)]:
        assert {*read(corpus, **keys)[0].fields} == {"tokens", "metadata"} | expected


@pytest.mark.parametrize("syntactic_loss", ["cross_entropy", "hinge"])
def test_a_batch_of_trees_teaches_the_syntactic_parser_alone(corpus, syntactic_loss):
    parser = build(corpus, syntactic_parser=parser_keys({"loss": syntactic_loss}))
    assert parts(gradients(parser, read(corpus, graphs=False))) == {"syntactic_parser"}
    # Shared: what is of the graph has none.
    parser = build(corpus, syntactic_head={"loss": syntactic_loss})
    assert parts(gradients(parser, read(corpus, graphs=False))) == {"text_encoder", "syntactic_head"}


def test_a_batch_of_trees_teaches_a_frozen_parser_nothing(corpus):
    parser = build(corpus, syntactic_parser=parser_keys(), frozen_parser=True)
    parser.model.train()
    with pytest.raises(ConfigurationError, match="neither gold graphs nor gold trees .* no frozen_parser"):
        parser.forward(read(corpus, graphs=False))
    assert parser.forward(read(corpus))["loss"].requires_grad


@pytest.mark.parametrize("estimator, reached", [("pipeline", False), ("spigot", True), ("marginals", True)])
def test_a_batch_of_graphs_reaches_the_syntactic_parser_through_the_surrogate(corpus, estimator, reached):
    parser = build(corpus, syntactic_parser=parser_keys(), estimator=estimator)
    found = gradients(parser, read(corpus, trees=False))
    assert {"text_encoder", "composer", "graph_head"} <= parts(found)
    syntactic = {name for name in found if name.startswith("syntactic_parser.")}
    assert bool(syntactic) == reached
    # Nobody said anything about relations.
    assert not any(name.startswith("syntactic_parser.syntactic_head.labeler") for name in syntactic)


def test_word_dropout_is_off_where_the_parser_is_an_intermediate_layer(corpus):
    embedder = {"tokens": {"type": "embedding_with_word_dropout", "embedding_dim": 6, "alpha": 1e6}}
    parser = build(
        corpus,
        syntactic_parser=parser_keys(text_field_embedder={"token_embedders": embedder}),
        estimator={"type": "spigot", "step_size": 10.0},
    )
    name = "syntactic_parser.text_encoder.text_field_embedder.token_embedder_tokens.weight"
    by_trees = gradients(parser, read(corpus, graphs=False))[name].any(-1).nonzero().flatten().tolist()
    assert by_trees == [1]  # The unknown word.
    by_graphs = gradients(parser, read(corpus, trees=False))[name].any(-1).nonzero().flatten().tolist()
    assert by_graphs and 1 not in by_graphs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dict[str, Path]:
    """The first sentences of the fixtures, by the names of the variables that the configs read."""
    directory = tmp_path_factory.mktemp("data")
    paths = {}
    for variable, name, number in (
        ("SPIGOT_TRAIN_DATA", "train.conllu", 24),
        ("SPIGOT_SDP_TRAIN_DATA", "train.sdp", 12),
        ("SPIGOT_SDP_VALIDATION_DATA", "dev.sdp", 6),
    ):
        blocks = (FIXTURES / "graphs" / name).read_text().split("\n\n")[:number]
        paths[variable] = directory / name
        paths[variable].write_text("\n\n".join(blocks) + "\n\n")
    paths["SPIGOT_WORD_VECTORS"] = FIXTURES / "vectors" / "vectors.txt"
    return paths


def parser_norms(model: Any, norms: Any, batch: Dict[str, Any]) -> Tuple[float, float]:
    """The norm of what a step's gradient is to the syntactic parser, before clipping and after it."""
    model.train().zero_grad()
    model(**batch)["loss"].backward()
    gradients = [p.grad for p in model.syntactic_parser.parameters() if p.grad is not None]
    before = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    for parameters, norm in norm_groups(model, norms):
        torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], norm)
    return before, torch.stack([gradient.norm() for gradient in gradients]).norm().item()


@pytest.mark.slow
def test_the_graph_does_not_drown_what_it_teaches_the_parser(monkeypatch):
    """
    The published recipe has a clip for each parser: however large the graph parser's own gradient is, the syntactic one
    takes as large a step on a graph as on a tree, where it has a gradient. With one clip it takes a fraction.
    """
    monkeypatch.chdir(FIXTURES.parent)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)
    config = Params.from_file(str(CONFIGS / "peng_2018.jsonnet"))
    norms = config["trainer"]["grad_norm"].as_dict()
    readers = config["dataset_reader"]["readers"]
    paths = config["train_data_path"]
    trees, graphs = (
        list(DatasetReader.from_params(readers[name], max_instances=100).read(paths[name]))
        for name in ("syntax", "semantics")
    )
    vocab = Vocabulary.from_params(config["vocabulary"], instances=[*trees, *graphs])
    torch.manual_seed(0)
    random.seed(0)
    model = Model.from_params(config["model"], vocab=vocab)
    # From scratch the graph's loss does not reach the tree yet.
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], 1e-3)
    for _ in range(60):
        instance = random.choice(random.choice((trees[25:], graphs[25:])))
        parser_norms(model, norms, Parser(model, [instance]).batch())
        optimizer.step()
    batches = [[Parser(model, [instance]).batch() for instance in part[:25]] for part in (trees, graphs)]
    on_trees, on_graphs = ([parser_norms(model, norms, batch) for batch in part] for part in batches)
    assert statistics.median(after for _, after in on_trees) == pytest.approx(1.0, rel=1e-3)
    for before, after in on_graphs:
        assert after == pytest.approx(min(before, 1.0), rel=1e-3)
    drowned = [parser_norms(model, {"default": 1.0}, batch) for batch in batches[1]]
    assert statistics.median(after / min(before, 1.0) for before, after in drowned) < 0.5


SMALL = {
    "two_corpora": {"data_loader.scheduler.batch_size": 4},
    "peng_2018": {
        "model.encoder.hidden_size": 8,
        "model.syntactic_parser.encoder.hidden_size": 8,
        "model.graph_head.hidden_dim": 4,
    },
    "peng_2018_pruners": {"model.encoder.hidden_size": 4, "model.syntactic_parser.encoder.hidden_size": 4},
}


PRUNERS = str(FIXTURES / "models" / "pruners.tar.gz")


@pytest.mark.parametrize("name", SMALL)
def test_training_on_the_command_line(name, data, tmp_path):
    overrides = json.dumps({**SMALL[name], "trainer.num_epochs": 2})
    config = CONFIGS / f"{name}.jsonnet"
    done = forked_command(
        tmp_path, "train", config, "-s", "run", "-o", overrides, **data, SPIGOT_PRUNERS_ARCHIVE=PRUNERS
    )
    assert done.returncode == 0, done.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["best_validation_loss"] > 0 and "best_validation_labeled_f1" in metrics
    archive = load_archive(tmp_path / "run" / "model.tar.gz")
    instances = list(archive.validation_dataset_reader.read(str(data["SPIGOT_SDP_VALIDATION_DATA"])))
    model = archive.model.eval()
    sentences = model.forward_on_instances(instances)
    assert all(len(s["heads"]) == len(s["words"]) and s["heads"].count(0) == 1 for s in sentences)
    if name == "peng_2018":
        for part in (model, model.syntactic_parser):
            assert part.text_encoder.text_field_embedder.token_embedder_tokens.counts.sum() > 100
        assert model.graph_head.deterministic_roles().any()
        # They are ready to be trained further.
        assert Parser(model.train(), instances).forward()["loss"].isfinite()
