"""Nested lists, evaluated along a gold or a latent tree."""

import copy
import json
import sys
from pathlib import Path
from typing import Any, Dict
from unittest import mock

import pytest
import torch
from allennlp.commands import main
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.testing import ModelTestCase
from allennlp.data import Batch, Vocabulary
from allennlp.models import Model
from allennlp.predictors import Predictor

from spigot_allennlp.data import ListopsDatasetReader
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.modules import TreeEvaluator
from tests.conftest import PROJECT_ROOT

READER = {"type": "listops", "train_size": 60, "validation_size": 12, "max_depth": 2, "max_length": 12}


def configuration(**model: Any) -> Dict[str, Any]:
    return {
        "dataset_reader": dict(READER),
        "train_data_path": "train",
        "validation_data_path": "validation",
        "model": {
            "type": "latent_tree_evaluator",
            "text_field_embedder": {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 6}}},
            "encoder": {"type": "lstm", "input_size": 6, "hidden_size": 4, "bidirectional": True},
            "hidden_dim": 8,
            "num_steps": 2,
            **model,
        },
        "data_loader": {"batch_size": 20},
        "trainer": {"optimizer": {"type": "adam", "lr": 0.01}, "num_epochs": 1, "cuda_device": -1},
    }


def test_states_are_those_of_a_recursion():
    torch.manual_seed(0)
    evaluator = TreeEvaluator(input_dim=3, hidden_dim=4, num_steps=3).double()
    heads = torch.tensor([[-1, 0, 1, 1, 3, 4], [-1, 2, 0, 2, -1, -1]])
    vectors = torch.randn(2, 5, 3, dtype=torch.double)

    def state(sentence: int, word: int) -> torch.Tensor:
        received = torch.zeros(4, dtype=torch.double)
        for dependent in (heads[sentence] == word).nonzero().flatten().tolist():
            received = received + evaluator.message(state(sentence, dependent))
        return evaluator.norm(evaluator.update(torch.cat([vectors[sentence, word - 1], received])))

    found = evaluator(vectors, arcs_from_heads(heads, torch.double))
    torch.testing.assert_close(found, torch.stack([state(0, 1), state(1, 2)]))
    # With fewer steps than the tree is deep, what is deepest does not arrive.
    evaluator.num_steps = 2
    fewer = evaluator(vectors, arcs_from_heads(heads, torch.double))
    torch.testing.assert_close(fewer[1], found[1])
    assert not torch.allclose(fewer[0], found[0])


class TestTrainSaveLoad(ModelTestCase):
    @pytest.mark.parametrize("model", [{"tree": "gold"}, {"estimator": "spigot"}, {"estimator": "marginals"}])
    def test_it(self, model):
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps(configuration(**model)))
        self.set_up_model(path, "train")
        unused = set()
        if model.get("tree") == "gold":
            unused = {name for name, _ in self.model.named_parameters() if "encoder" in name}
        self.ensure_model_can_train_save_and_load(path, gradients_to_ignore=unused)


@pytest.mark.parametrize("name", ["latent", "gold"])
def test_configs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    overrides = {
        "dataset_reader": dict(READER),
        "trainer": {"num_epochs": 1, "optimizer": {"type": "sgd", "lr": 0.1}, "validation_metric": "+accuracy"},
        "data_loader": {"batch_size": 60},
        "validation_data_loader": {"batch_size": 60},
    }
    path = str(PROJECT_ROOT / "training_configs" / "listops" / f"{name}.jsonnet")
    # One of each kind: pulled back, relaxed, noisy, exact over few trees.
    estimators = ["spigot_eg", "marginals", "perturbed", "sparse_marginalization"] if name == "latent" else [None]
    for estimator in estimators:
        if estimator:
            monkeypatch.setenv("SPIGOT_ESTIMATOR", estimator)
        params = Params.from_file(path).as_dict(quiet=True)
        params.update(copy.deepcopy(overrides))
        # Two steps tell whether an estimator works in this model.
        model = train_model(Params(params), str(tmp_path / str(estimator)))
        metrics = json.loads((tmp_path / str(estimator) / "metrics.json").read_text())
        assert 0 <= metrics["best_validation_accuracy"] <= 1
        if name == "latent":
            # A tree and a gold one have equally many edges.
            assert metrics["validation_edge_precision"] == pytest.approx(metrics["validation_edge_recall"])
            assert metrics["validation_edge_precision"] == pytest.approx(metrics["validation_edge_f1"])
            assert model.arc_scorer.score.weight.grad is not None


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "run"
    train_model(Params(configuration(estimator="spigot")), str(directory))
    return directory / "model.tar.gz"


def run(*arguments: str) -> None:
    with mock.patch.object(sys, "argv", ["allennlp", *arguments]):
        main()


def test_predict_and_draw(archive: Path, tmp_path: Path):
    text = tmp_path / "expressions.txt"
    text.write_text("[MAX 2[SM 4 7]0]\n[MIN 1 2 ]\n")
    run("predict", str(archive), str(text), "--output-file", str(tmp_path / "text.jsonl"), "--silent")
    outputs = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    assert [output["words"] for output in outputs] == [
        ["[MAX", "2", "[SM", "4", "7", "]", "0", "]"],
        ["[MIN", "1", "2", "]"],
    ]
    for output in outputs:
        assert output.keys() == {"words", "label", "probabilities", "heads"}
        assert output["heads"].count(0) == 1 and len(output["heads"]) == len(output["words"])
        assert output["label"] in range(10)
    predictions = tmp_path / "predictions.jsonl"
    flags = ["--use-dataset-reader", "--output-file", str(predictions), "--silent"]
    run("predict", str(archive), "validation", *flags)
    reader = json.dumps(READER)
    run("draw", str(predictions), "--gold", "validation", "--gold-reader", reader, "-o", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="sentence"') == 12
    assert "displacy-arrow missed" in page and "displacy-arrow correct" in page


def test_text_that_is_no_expression(archive: Path):
    predictor = Predictor.from_path(str(archive))
    with pytest.raises(ConfigurationError, match="unknown token 'two'"):
        predictor.predict_json({"sentence": "[MAX two 3 ]"})


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"tree": "none"}, "tree is 'none'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"hidden_dim": 0}, "hidden_dim is 0"),
        ({"num_labels": 0}, "num_labels is 0"),
        ({"structure": "categorical"}, "categorical"),
    ],
)
def test_bad_values(keys: Dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Model.from_params(Params(configuration(**keys)["model"]), vocab=Vocabulary())


def test_gold_trees_are_needed():
    reader = ListopsDatasetReader(train_size=4, max_depth=1, max_length=8)
    instances = list(reader.read("train"))
    vocab = Vocabulary.from_instances(instances)
    model = Model.from_params(Params(configuration(tree="gold")["model"]), vocab=vocab)
    for instance in instances:
        reader.apply_token_indexers(instance)
        instance.fields.pop("head_indices")
    batch = Batch(instances)
    batch.index_instances(vocab)
    with pytest.raises(ConfigurationError, match="tree is 'gold', but a batch has no gold trees"):
        model(**batch.as_tensor_dict())
