"""Sentiment with a latent tree: the configs in `training_configs/sentiment`, every estimator, and what is computed."""

import json
from typing import Any, List

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.models import Model

from spigot_allennlp.data import SstTreesDatasetReader
from tests.conftest import PROJECT_ROOT
from tests.models.classifier_test_case import (
    BuiltClassifier,
    LatentTreeConfigsTestCase,
    LatentTreeTestCase,
    indexed,
    overrides,
)
from tests.models.configs import some_estimators

FOLDER = PROJECT_ROOT / "training_configs" / "sentiment"

SENTENCES = [
    "1\tvery good",
    "0\tvery bad indeed",
    "1\tgood , not bad",
    "0\tbad",
    "1\ta film that is good",
    "0\tbad film",
]


@pytest.fixture
def corpus(tmp_path) -> str:
    path = tmp_path / "corpus.tsv"
    path.write_text("\n".join(SENTENCES))
    return str(path)


class TestConfigs(LatentTreeConfigsTestCase):
    folder = FOLDER

    @pytest.mark.parametrize("name", [*some_estimators(0), "none"])
    def test_train_save_and_load(self, name: str, corpus: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("SPIGOT_ESTIMATOR", name)
        self.check_config(name, corpus, **{"model.dropout": 0.2})

    def test_the_published_sizes(self, tmp_path, monkeypatch):
        vectors = tmp_path / "vectors.txt"
        vectors.write_text("good " + " ".join(["0.5"] * 300) + "\n")
        monkeypatch.setenv("SPIGOT_WORD_VECTORS", str(vectors))
        monkeypatch.setenv("SPIGOT_WORD_DIM", "300")
        params = Params.from_file(str(FOLDER / "latent.jsonnet"))
        reader = SstTreesDatasetReader(granularity=2)
        instances = indexed(reader, [reader.text_to_instance("good", "1"), reader.text_to_instance("bad", "0")])
        vocab = Vocabulary.from_instances(instances)
        model = Model.from_params(params["model"], vocab=vocab)
        embedding = model.text_encoder.text_field_embedder.token_embedder_tokens.weight
        assert embedding.size(1) == 300 and not embedding.requires_grad
        assert embedding[vocab.get_token_index("good")].tolist() == [0.5] * 300
        sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        assert model.text_encoder.get_output_dim() == 100
        assert sizes["arc_scorer.dependent.weight"] == sizes["arc_scorer.head.weight"] == (100, 100)
        assert sizes["arc_scorer.score.weight"] == (1, 100)
        assert sizes["classifier._linear_layers.0.weight"] == (100, 200)
        assert sizes["classifier._linear_layers.1.weight"] == (2, 100)
        assert not model.structure.single_root


class Built(BuiltClassifier):
    """A model, built as from a config, and some labelled sentences."""

    def __init__(self, sentences: List[str] = SENTENCES, **keys: Any) -> None:
        reader = SstTreesDatasetReader(granularity=2)
        pairs = [line.split("\t") for line in sentences]
        instances = indexed(reader, [reader.text_to_instance(words, label) for label, words in pairs])
        params = {
            "type": "latent_tree_classifier",
            "text_field_embedder": {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 6}}},
            "encoder": {"type": "lstm", "input_size": 6, "hidden_size": 4, "bidirectional": True},
            **keys,
        }
        super().__init__(params, instances)


class TestClassifier(LatentTreeTestCase):
    name = "latent_tree_classifier"
    built = Built


class TestForward:
    @pytest.mark.parametrize(
        "estimator", ["spigot", {"type": "marginals", "relaxed_evaluation": True}], ids=["spigot", "marginals"]
    )
    def test_each_word_sees_its_head(self, estimator):
        """`[h_i; sum_j z_ij h_j]`, word by word: no row sums, and ROOT is a head but no word."""
        built = Built(estimator=estimator)
        seen = []
        built.model.pooling.register_forward_pre_hook(lambda module, args: seen.append(args))
        batch = built.batch()
        output = built.model(**batch)
        states, mask = built.model.text_encoder(batch["tokens"])
        ((vectors, words),) = seen
        assert words.tolist() == mask[:, 1:].tolist()
        size = states.size(-1)
        for b, instance in enumerate(built.instances):
            for i in range(1, len(instance["tokens"]) + 1):
                torch.testing.assert_close(vectors[b, i - 1, :size], states[b, i])
                expected = sum(output["tree"][b, i, j] * states[b, j] for j in range(states.size(1)))
                torch.testing.assert_close(vectors[b, i - 1, size:], expected)
                if estimator == "spigot":
                    torch.testing.assert_close(vectors[b, i - 1, size:], states[b, output["heads"][b, i]])

    def test_another_head_changes_that_word_only(self):
        built = Built()
        seen = []
        built.model.pooling.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        states, mask = built.model.text_encoder(built.batch()["tokens"])
        first = built.model.structure.argmax(torch.zeros(len(mask), *[mask.size(1)] * 2), mask)
        second = first.clone()
        second[2, 3] = torch.nn.functional.one_hot((first[2, 3].argmax() + 1) % 3, mask.size(1)).float()
        logits = [built.model._downstream(states, mask, tree, None)["logits"] for tree in (first, second)]
        changed = (seen[0] != seen[1]).any(-1)
        assert changed.nonzero().tolist() == [[2, 2]]
        assert (logits[0] != logits[1]).any(-1).nonzero().flatten().tolist() == [2]
        # Linear in z.
        built.model._downstream(states, mask, 0.25 * first + 0.75 * second, None)
        torch.testing.assert_close(seen[2], 0.25 * seen[0] + 0.75 * seen[1])

    @pytest.mark.parametrize("tree", ["latent", "none"])
    def test_attention_is_over_the_words(self, tree):
        built = Built(tree=tree)
        batch = built.batch()
        attention = built.model(**batch)["attention"]
        lengths = [len(instance["tokens"]) for instance in built.instances]
        assert attention.shape == (len(lengths), max(lengths))
        torch.testing.assert_close(attention.sum(-1), torch.ones(len(lengths)))
        for row, length in zip(attention, lengths):
            assert (row[:length] > 0).all() and (row[length:] == 0).all()
        assert attention[4].unique().numel() > 1

    def test_keys(self):
        built = Built()
        always = {"logits", "probabilities", "attention", "metadata", "tree", "loss"}
        assert built.model.train()(**built.batch()).keys() == always
        batch = built.batch()
        assert built.model.eval()(**batch).keys() == always | {"heads"}
        del batch["label"]
        output = built.model(**batch)
        assert output.keys() == always - {"loss"} | {"heads"}
        readable = built.model.make_output_human_readable(output)
        assert readable.keys() == {"words", "label", "probabilities", "heads"}
        for b, instance in enumerate(built.instances):
            assert readable["words"][b] == [token.text for token in instance["tokens"]]
            assert readable["heads"][b] == output["heads"][b, 1 : len(instance["tokens"]) + 1].tolist()
            probabilities = readable["probabilities"][b]
            assert probabilities.keys() == {"0", "1"} and sum(probabilities.values()) == pytest.approx(1, abs=1e-3)
            assert readable["label"][b] == max(probabilities, key=probabilities.get)

    def test_without_a_tree(self):
        built = Built(tree="none")
        output = built.model(**built.batch())
        assert not {"tree", "heads"} & output.keys()
        assert "heads" not in built.model.make_output_human_readable(output)
        assert built.model.get_metrics().keys() == {"accuracy"}
        assert not any("arc_scorer" in name for name, _ in built.model.named_parameters())

    def test_trees_may_have_several_roots(self):
        built = Built()
        # ROOT as everyone's head.
        built.model.arc_scorer.forward = lambda states: torch.zeros(*states.shape[:2], states.size(1)).index_fill(
            2, torch.tensor([0]), 1.0
        )
        output = built.model(**built.batch())
        assert output["heads"].max() == 0
        assert built.model.get_metrics(reset=True)["tree_depth"] == 1.0


class TestTraining:
    @pytest.mark.parametrize("estimator, arrives", [("spigot", True), ("marginals", True), ("pipeline", False)])
    def test_what_reaches_the_arc_scorer(self, estimator, arrives):
        built = Built(estimator=estimator)
        built.model.train()(**built.batch())["loss"].backward()
        gradients = [parameter.grad for name, parameter in built.model.arc_scorer.named_parameters()]
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients) == arrives

    @pytest.mark.parametrize("name", ["none", "latent"])
    def test_it_learns(self, name, corpus, tmp_path):
        changes = overrides(corpus, **{"trainer.num_epochs": 20, "trainer.optimizer.lr": 0.02})
        train_model(Params.from_file(str(FOLDER / f"{name}.jsonnet"), json.dumps(changes)), tmp_path / "run")
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["best_validation_accuracy"] == 1.0 and metrics["training_loss"] < 0.1


def test_a_bad_key_of_the_arc_scorer():
    with pytest.raises(ConfigurationError, match="num_layers is 0; valid: an integer >= 1"):
        Built(arc_scorer={"type": "mlp", "num_layers": 0})


def test_one_word():
    built = Built(["1\tgood", "0\tbad"])
    output = built.model(**built.batch())
    assert output["heads"].tolist() == [[-1, 0], [-1, 0]]
    assert output["attention"].tolist() == [[1.0], [1.0]]
