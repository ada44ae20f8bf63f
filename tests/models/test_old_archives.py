"""
Archives from before the first release, with the keys and the names of parameters that they had then. Those in
`fixtures/models` are of that time, too: see `test_archived_parsers`.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.models import load_archive

from spigot_allennlp.models.old_archives import upgraded_config, upgraded_state_dict
from tests.models.parsers import build, parser_keys, read
from tests.training.small import configuration, write_corpus

# As they were: the pattern of a name of today, and the old one.
OLD_NAMES = {
    r"^syntactic_parser\.syntactic_head\.": "syntactic_parser.head.",
    r"^syntactic_head\.pruner\.model\.syntactic_head\.": "parser_head.pruner.model.head.",
    r"^syntactic_head\.": "parser_head.",
    r"^graph_head\.(arc_scorer|labeler|pruner)\.": r"graph_\1.",
    r"^graph_head\.(predicate_scorer|deterministic_roles)\.": r"\1.",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.conllu")


def as_it_was(model: Dict[str, Any]) -> Dict[str, Any]:
    """The model's config with the old keys."""
    head, graph = model.pop("syntactic_head", {}), model.pop("graph_head")
    if "arc_scorer" in graph:
        model["graph_arc_scorer"] = graph.pop("arc_scorer")
    for key in ("loss", "pruner"):
        if key in head:
            model[f"syntactic_{key}"] = head.pop(key)
        if key in graph:
            model[f"graph_{key}"] = graph.pop(key)
    if "syntactic_parser" in model:
        model["syntactic_parser"].update(model["syntactic_parser"].pop("syntactic_head"))
    return {**model, **head, **graph, "syntax": "predicted"}


def old_archive(directory: Path, archive: Path) -> Path:
    """The archive of a run as an earlier version would have written it."""
    with tarfile.open(archive) as file:
        file.extractall(directory)
    config = json.loads((directory / "config.json").read_text())
    config["model"] = as_it_was(config["model"])
    (directory / "config.json").write_text(json.dumps(config))
    weights = {}
    for name, value in torch.load(directory / "weights.th", weights_only=True).items():
        for pattern, old in OLD_NAMES.items():
            name = re.sub(pattern, old, name)
        weights[name] = value
    torch.save(weights, directory / "weights.th")
    for path in directory.glob("*_head.pruner.model.tar.gz"):
        path.rename(path.with_name(path.name.replace("syntactic_head.", "syntactic_")))
    with tarfile.open(directory / "old.tar.gz", "w:gz") as file:
        for path in directory.iterdir():
            if path.name != "old.tar.gz":
                file.add(path, path.name)
    return directory / "old.tar.gz"


def predictions(archive: Path, corpus: Path):
    return load_archive(archive).model.eval().forward_on_instances(read(corpus))


def test_a_parser_with_all_old_keys(corpus, tmp_path):
    """Also the archive of a pruner, that was kept under an old key."""
    run = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 2}
    syntactic = {**configuration(corpus, trainer=run), "model": parser_keys()}
    train_model(Params(syntactic), str(tmp_path / "pruner"))
    pruner = {"model": {"type": "from_archive", "archive_file": str(tmp_path / "pruner" / "model.tar.gz")}}
    config = configuration(
        corpus,
        trainer=run,
        syntactic_head={"arc_scorer": {"arc_dim": 7}, "loss": "hinge", "pruner": {**pruner, "threshold": 0.01}},
        graph_head={
            "arc_scorer": {"type": "mlp", "hidden_dim": 6},
            "loss": "hinge",
            "predicate_dim": 3,
            "deterministic_roles": "observed",
        },
    )
    config["include_in_archive"] = ["syntactic_head.pruner.model.tar.gz"]
    train_model(Params(config), str(tmp_path / "run"))
    expected = predictions(tmp_path / "run" / "model.tar.gz", corpus)
    (tmp_path / "old").mkdir()
    old = old_archive(tmp_path / "old", tmp_path / "run" / "model.tar.gz")
    with tarfile.open(old) as file:
        assert "syntactic_pruner.model.tar.gz" in file.getnames()
    shutil.rmtree(tmp_path / "pruner")
    assert predictions(old, corpus) == expected


def test_a_parser_of_its_own(corpus, tmp_path):
    config = configuration(
        corpus, syntactic_parser=parser_keys({"arc_scorer": {"arc_dim": 3}}), trainer={"num_epochs": 1}
    )
    train_model(Params(config), str(tmp_path / "run"))
    (tmp_path / "old").mkdir()
    old = old_archive(tmp_path / "old", tmp_path / "run" / "model.tar.gz")
    assert predictions(old, corpus) == predictions(tmp_path / "run" / "model.tar.gz", corpus)
    # Overrides have the keys of today.
    overrides = json.dumps({"model.graph_head": {"label_dim": 4}})
    with pytest.raises(ConfigurationError, match="size mismatch for graph_head.labeler"):
        load_archive(old, overrides=overrides)


def test_old_keys_are_no_keys_of_a_new_config(corpus):
    with pytest.raises(ConfigurationError, match="SyntacticThenSemantic has no key 'graph_loss'; valid: .*graph_head"):
        build(corpus, graph_loss="hinge")
    with pytest.raises(ConfigurationError, match="syntax is 'predicted'; valid: 'latent'"):
        build(corpus, syntax="predicted")


def test_a_key_that_had_no_effect():
    config = {"type": "syntactic_then_semantic", "syntax": "none", "arc_scorer": {"arc_dim": 3}, "label_dim": 2}
    assert upgraded_config(config, "nowhere") == {
        "type": "syntactic_then_semantic",
        "syntax": "none",
        "graph_head": {"label_dim": 2},
    }
    assert upgraded_config({"type": "latent_cluster_classifier", "cluster": "predicted"}, "") == {
        "type": "latent_cluster_classifier",
        "cluster": "latent",
    }


def test_names_of_today_stay():
    names = [
        "graph_head.predicate_scorer.hidden.weight",
        "semantic_parser.graph_head.deterministic_roles.occurrences",
        "syntactic_parser.syntactic_head.arc_scorer.head._linear_layers.0.weight",
        "syntactic_head.labeler.head._linear_layers.0.bias",
    ]
    assert list(upgraded_state_dict(dict.fromkeys(names, torch.zeros(1)))) == names
