"""Entailment with latent trees: the configs in `training_configs/entailment`, every estimator, and what is computed."""

import json
from typing import Any, List, Tuple

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.data import SnliPairsDatasetReader
from spigot_allennlp.structures import Product
from tests.conftest import PROJECT_ROOT
from tests.models.classifier_test_case import (
    BuiltClassifier,
    LatentTreeConfigsTestCase,
    LatentTreeTestCase,
    indexed,
    overrides,
)
from tests.models.configs import some_estimators

FOLDER = PROJECT_ROOT / "training_configs" / "entailment"
SMALL = {"model.hidden_dim": 20, "model.arc_scorer.hidden_dim": 20}

PAIRS = [
    ("a dog runs", "an animal moves", "entailment"),
    ("a dog runs in the park", "it sleeps", "contradiction"),
    ("dogs", "a dog in a park", "neutral"),
    ("the dog that runs sleeps", "the dog runs", "entailment"),
    ("it sleeps", "a park", "neutral"),
    ("the animal moves", "the animal sleeps", "contradiction"),
]


@pytest.fixture
def corpus(tmp_path) -> str:
    path = tmp_path / "corpus.jsonl"
    keys = ("sentence1", "sentence2", "gold_label")
    path.write_text("\n".join(json.dumps(dict(zip(keys, pair))) for pair in PAIRS))
    return str(path)


class TestConfigs(LatentTreeConfigsTestCase):
    folder = FOLDER

    @pytest.mark.parametrize("name", [*some_estimators(1), "none"])
    def test_train_save_and_load(self, name: str, corpus: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("SPIGOT_ESTIMATOR", name)
        self.check_config(name, corpus, **SMALL)


class Built(BuiltClassifier):
    """A model, built as from a config, and some labelled pairs."""

    def __init__(self, pairs: List[Tuple[str, str, str]] = PAIRS, word_dim: int = 6, **keys: Any) -> None:
        reader = SnliPairsDatasetReader()
        instances = indexed(reader, [reader.text_to_instance(*pair) for pair in pairs])
        embedder = {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": word_dim}}}
        params = {"type": "latent_tree_entailment", "text_field_embedder": embedder, "hidden_dim": 5, **keys}
        super().__init__(params, instances)


class TestClassifier(LatentTreeTestCase):
    name = "latent_tree_entailment"
    built = Built


class TestForward:
    @pytest.mark.parametrize("tree", ["argmax", "relaxed", "none"])
    def test_word_by_word(self, tree):
        """The formulas of the docstring, for each pair alone, in loops over its words."""
        keys = {
            "argmax": {},
            "relaxed": {"estimator": {"type": "marginals", "relaxed_evaluation": True}},
            "none": {"tree": "none"},
        }
        built = Built(**keys[tree])
        model, output = built.model, built.model(**built.batch())
        for number, instance in enumerate(built.instances):
            x, h = [], []
            for position, name in enumerate(("premise", "hypothesis")):
                words = [built.vocab.get_token_index(token.text) for token in instance[name]]
                x.append(model.text_field_embedder.token_embedder_tokens.weight[words])
                h.append(model.encode(x[-1]))
                if tree != "none":
                    with_root = torch.cat([model.root.state[None], h[-1]])
                    arcs = output["trees"][number, position]
                    heads = [
                        sum(arcs[i, j] * with_root[j] for j in range(len(with_root))) for i in range(1, len(with_root))
                    ]
                    h[-1] = torch.cat([h[-1], torch.stack(heads)], -1)
                    if tree == "argmax":
                        chosen = output["heads"][number, position, 1 : len(with_root)]
                        torch.testing.assert_close(torch.stack(heads), with_root[chosen])
            e = h[0] @ h[1].t()
            sums = []
            for own, other, scores in ((x[0], x[1], e), (x[1], x[0], e.t())):
                compared = [model.compare(torch.cat([own[i], scores[i].softmax(-1) @ other])) for i in range(len(own))]
                sums.append(sum(compared))
            logits = model.aggregate(torch.cat(sums))
            torch.testing.assert_close(output["logits"][number], logits)
            for attention, scores in zip(output["attention"][number], (e, e.t())):
                rows, columns = scores.shape
                torch.testing.assert_close(attention[:rows, :columns], scores.softmax(-1))
                assert not attention[rows:].any() and not attention[:, columns:].any()

    def test_sizes(self):
        built = Built(word_dim=300, hidden_dim=200)
        sizes = {name: tuple(parameter.shape) for name, parameter in built.model.named_parameters()}
        layers = {"encode": [(200, 300), (200, 200)], "compare": [(200, 600), (200, 200)]}
        layers["aggregate"] = [(200, 400), (3, 200)]
        for name, shapes in layers.items():
            assert [sizes[f"{name}._linear_layers.{number}.weight"] for number in range(2)] == shapes

    def test_keys(self):
        built = Built()
        always = {"logits", "probabilities", "attention", "metadata", "trees", "loss"}
        assert built.model.train()(**built.batch()).keys() == always
        batch = built.batch()
        assert built.model.eval()(**batch).keys() == always | {"heads"}
        del batch["label"]
        output = built.model(**batch)
        assert output.keys() == always - {"loss"} | {"heads"}
        readable = built.model.make_output_human_readable(output)
        sentences = ("premise", "hypothesis")
        assert readable.keys() == {
            *("label", "probabilities"),
            *(f"{sentence}_{what}" for sentence in sentences for what in ("words", "heads")),
        }
        for number, instance in enumerate(built.instances):
            for position, sentence in enumerate(sentences):
                words = [token.text for token in instance[sentence]]
                assert readable[f"{sentence}_words"][number] == words
                expected = output["heads"][number, position, 1 : len(words) + 1].tolist()
                assert readable[f"{sentence}_heads"][number] == expected
            probabilities = readable["probabilities"][number]
            assert probabilities.keys() == {"entailment", "neutral", "contradiction"}
            assert readable["label"][number] == max(probabilities, key=probabilities.get)

    def test_without_trees(self):
        built = Built(tree="none")
        output = built.model(**built.batch())
        assert not {"trees", "heads"} & output.keys()
        assert built.model.make_output_human_readable(output).keys().isdisjoint({"premise_heads", "hypothesis_heads"})
        assert built.model.get_metrics().keys() == {"accuracy"}
        assert not any("arc_scorer" in name or "root" in name for name, _ in built.model.named_parameters())


class TestTraining:
    @pytest.mark.parametrize("estimator", ["spigot", "marginals", "score_function", "minimum_risk", "pipeline"])
    def test_the_gradient_of_a_pair_is_its_own(self, estimator):
        """Neither the padding nor the trees of other pairs have a share in it."""
        built = Built(estimator=estimator, dropout=0.0)
        model = built.model.train()
        if estimator == "score_function":
            # What is drawn differs between batches; the surrogate of given structures does not.
            model.structure.sample = lambda scores, mask, count: model.structure.argmax(scores, mask)[None]
            model.estimator.baseline = "none"

        def gradient(instances: List[int], weight: int) -> List[torch.Tensor]:
            model.zero_grad()
            (weight * model(**built.batch(instances))["loss"]).backward()
            return [
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
                for parameter in model.parameters()
            ]

        together = gradient([1, 2, 4], 3)
        arrives = any(
            parameter.grad is not None and parameter.grad.any() for parameter in model.arc_scorer.parameters()
        )
        alone = [sum(parts) for parts in zip(*(gradient([index], 1) for index in (1, 2, 4)))]
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
        assert arrives == (estimator != "pipeline")

    def test_it_learns(self, corpus, tmp_path):
        keys = {"trainer.num_epochs": 40, "trainer.optimizer.lr": 0.02, "model.dropout": 0.0}
        changes = overrides(corpus, **SMALL, **keys)
        train_model(Params.from_file(str(FOLDER / "latent.jsonnet"), json.dumps(changes)), tmp_path / "run")
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["best_validation_accuracy"] == 1.0 and metrics["training_loss"] < 0.1


def test_the_structure_is_that_of_one_sentence():
    with pytest.raises(ConfigurationError, match="structure is 'product' of 'single_head'"):
        Built(structure={"type": "product", "factor": "single_head"})


def test_defaults():
    model = Built().model
    assert isinstance(model.structure, Product)
    assert type(model.structure.factor).__name__ == "NonprojectiveTree" and not model.structure.factor.single_root


def test_one_word():
    built = Built([("dogs", "run", "neutral"), ("a", "b", "entailment")])
    output = built.model(**built.batch())
    assert output["heads"].tolist() == [[[-1, 0]] * 2] * 2
    assert output["attention"].tolist() == [[[[1.0]]] * 2] * 2
