"""Sentiment by way of a semantic graph: the configs in `training_configs/semantic_then_sentiment`, and what they do."""

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Batch, DatasetReader, Vocabulary
from allennlp.models import Model, load_archive
from allennlp.predictors import Predictor

from spigot_allennlp.data import ConlluGraphsDatasetReader
from spigot_allennlp.predictors import SentenceClassifierPredictor
from tests.conftest import FIXTURES, PROJECT_ROOT
from tests.models.classifier_test_case import BuiltClassifier, ConfigsTestCase, indexed, mean_cross_entropy
from tests.models.configs import some_estimators

FOLDER = PROJECT_ROOT / "training_configs" / "semantic_then_sentiment"
ARCHIVE = FIXTURES / "models" / "semantic_parser.tar.gz"

SENTENCES = [
    "1\tthe film that the critic praised was lovely",
    "0\tthe critic hated it",
    "1\tgood",
    "0\tnobody liked the awful film",
]


@pytest.fixture
def corpus(tmp_path) -> str:
    path = tmp_path / "corpus.tsv"
    path.write_text("\n".join(SENTENCES))
    return str(path)


@pytest.fixture(scope="module")
def parser() -> Model:
    return load_archive(ARCHIVE).model.eval()


def on_one_corpus(name: str, corpus: str, path: Path) -> Path:
    """A config as it is, but with sentiment only and smaller layers."""
    path.write_text(
        f"""
        local config = import '{FOLDER / name}.jsonnet';
        config {{
          dataset_reader: config.validation_dataset_reader,
          train_data_path: '{corpus}', validation_data_path: '{corpus}',
          data_loader: {{ batch_size: 8, shuffle: false }},
          model+: {{ hidden_dim: 7, label_dim: 5, dropout: 0.1 }},
          trainer+: {{ num_epochs: 1, cuda_device: -1 }},
        }}
        """
    )
    return path


class TestConfigs(ConfigsTestCase):
    folder = FOLDER
    others = {"none", "pipeline", "unlabeled"}

    @pytest.mark.parametrize("name", sorted({*some_estimators(2), *others}))
    def test_train_save_and_load(
        self, name: str, corpus: str, tmp_path: Path, parser: Model, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("SPIGOT_ESTIMATOR", name if name not in self.others else "spigot")
        path = on_one_corpus(name if name in self.others else "latent", corpus, tmp_path / "config.jsonnet")
        # What of the parser learns depends on which arcs change.
        ignored = {f"semantic_parser.{parameter}" for parameter, _ in parser.named_parameters()}
        self.check_train_save_and_load(name, path, corpus, ignored)

    def test_the_published_sizes(self, monkeypatch, tmp_path):
        (tmp_path / "vectors.txt").write_text("good " + " ".join(["0.5"] * 300) + "\n")
        monkeypatch.setenv("SPIGOT_WORD_VECTORS", str(tmp_path / "vectors.txt"))
        monkeypatch.setenv("SPIGOT_WORD_DIM", "300")
        params = Params.from_file(str(FOLDER / "latent.jsonnet"))
        reader = DatasetReader.from_params(params["validation_dataset_reader"])
        instances = indexed(reader, [reader.text_to_instance(["good"], "1"), reader.text_to_instance(["bad"], "0")])
        model = Model.from_params(params["model"], vocab=vocabulary(params, instances))
        sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        assert sizes["text_encoder.encoder._module.weight_ih_l0"] == (4 * 150, 300 + 50 + 50)
        assert "text_encoder.encoder._module.weight_ih_l1" not in sizes
        assert sizes["composer.own.weight"] == (100, 300) and sizes["classifier._linear_layers.0.weight"] == (100, 100)
        assert model.text_encoder.dropout.p == 0.5 and model.vector_dropout.p == 0.2
        assert model.estimator.max_gradient_norm == 5 / 32


def vocabulary(params: Params, instances: List[Any]) -> Vocabulary:
    return Vocabulary.from_params(Params(params["vocabulary"].as_dict()), instances=instances)


class Built(BuiltClassifier):
    """A model, built as from a config, and some labelled sentences."""

    def __init__(self, name: str = "latent", **keys: Any) -> None:
        params = Params.from_file(str(FOLDER / f"{name}.jsonnet"))
        self.reader = DatasetReader.from_params(params.pop("validation_dataset_reader"))
        pairs = [line.split("\t") for line in SENTENCES]
        instances = indexed(self.reader, [self.reader.text_to_instance(text, label) for label, text in pairs])
        super().__init__({**params["model"].as_dict(), **keys}, instances, vocabulary(params, instances))

    def graphs(self) -> Dict[str, Any]:
        """A batch of what the parser was trained on."""
        indexers = self.reader._parser_token_indexers
        reader = ConlluGraphsDatasetReader(indexers, labels="coarse", max_instances=4)
        batch = Batch(list(reader.read(str(FIXTURES / "graphs" / "dev.conllu"))))
        batch.index_instances(self.vocab)
        return batch.as_tensor_dict()


class TestGraphs:
    @pytest.mark.parametrize("name", ["pipeline", "latent", "unlabeled"])
    def test_the_graph_is_the_one_that_the_parser_predicts(self, name, parser):
        built = Built(name)
        batch = built.batch()
        output = built.model(**batch)
        readable = built.model.make_output_human_readable(output)
        words = [entry["words"] for entry in batch["metadata"]]
        assert readable["words"] == words
        metadata = [{"words": each, "sentence_id": None} for each in words]
        # The parser by itself, on text that it indexes with its own vocabulary.
        reader = ConlluGraphsDatasetReader(built.reader._parser_token_indexers)
        own = Batch(indexed(reader, [reader.text_to_instance(each) for each in words]))
        own.index_instances(parser.vocab)
        predicted = parser(own.as_tensor_dict()["tokens"], metadata)
        predicted = parser.make_output_human_readable(predicted)["arcs"]
        assert sum(map(len, predicted)) > 5
        for found, expected in zip(readable["arcs"], predicted):
            keys = ("dependent", "head") if name == "unlabeled" else ("dependent", "head", "label")
            assert [tuple(arc.values()) for arc in found] == [tuple(arc[key] for key in keys) for arc in expected]

    def test_words_unknown_to_the_parser_stay_so(self, parser):
        built = Built()
        tokens = built.batch()["parser_tokens"]["tokens"]["tokens"]
        assert built.vocab.get_vocab_size("tokens") == parser.vocab.get_vocab_size("tokens")
        known = parser.vocab.get_token_to_index_vocabulary("tokens")
        for instance, row in zip(built.instances, tokens):
            expected = [known.get(token.text.lower(), 1) for token in instance["tokens"]]
            assert row[: len(expected)].tolist() == expected
        assert built.vocab.get_token_index("nobody", "words") > 1

    def test_keys(self):
        built = Built()
        always = {"logits", "probabilities", "metadata", "graph", "loss"}
        batch = built.batch()
        assert built.model.train()(**batch).keys() == always
        del batch["label"]
        output = built.model.eval()(**batch)
        assert output.keys() == always - {"loss"}
        assert built.model.make_output_human_readable(output).keys() == {"words", "label", "probabilities", "arcs"}
        metrics = built.model.get_metrics(reset=True)
        assert metrics.keys() == {"accuracy", "arcs_per_word"} and metrics["arcs_per_word"] > 0
        assert not output["graph"][:, :, 0].any()

    def test_a_sum_over_words(self):
        """Each sentence alone, by the formulas of the docstring."""
        built = Built()
        output = built.model(**built.batch())
        batch = built.batch()
        states, mask = built.model.text_encoder(batch["tokens"])
        for number, length in enumerate(mask.sum(-1).tolist()):
            words = slice(1, length)
            vectors = built.model.composer(states[number, words][None], output["graph"][number, words, words][None])
            torch.testing.assert_close(output["logits"][number], built.model.classifier(vectors[0].sum(0)))
        torch.testing.assert_close(output["loss"], mean_cross_entropy(output["logits"], batch["label"]))

    def test_without_a_graph(self):
        built = Built("none")
        output = built.model(**built.batch())
        assert "graph" not in output and "arcs" not in built.model.make_output_human_readable(output)
        assert not any("semantic_parser" in name for name, _ in built.model.named_parameters())
        assert built.model.get_metrics().keys() == {"accuracy"}


class TestTraining:
    @pytest.mark.parametrize(
        "name, keys, arrives",
        [
            ("latent", {"estimator": "marginals"}, True),
            ("latent", {"estimator": {"type": "spigot", "step_size": 1000.0}}, True),
            ("unlabeled", {"estimator": {"type": "spigot", "step_size": 1000.0}}, True),
            ("latent", {"estimator": "pipeline"}, False),
            ("latent", {"estimator": "marginals", "frozen_parser": True}, False),
        ],
    )
    def test_what_reaches_the_parser(self, name, keys, arrives):
        built = Built(name, **keys)
        built.model.train()(**built.batch())["loss"].backward()
        gradients = [parameter.grad for parameter in built.model.semantic_parser.parameters()]
        assert any(gradient is not None and gradient.any() for gradient in gradients) == arrives
        assert built.model.composer.of_heads.weight.grad.any()

    def test_a_frozen_parser_keeps_still(self):
        built = Built(frozen_parser=True)
        assert not built.model.train().semantic_parser.training and built.model.classifier.training
        with pytest.raises(ConfigurationError, match="frozen_parser is true"):
            built.model(**built.graphs())

    def test_a_batch_of_graphs_teaches_the_parser(self, parser):
        built = Built()
        graphs = built.graphs()
        output = built.model.train()(**graphs)
        assert output.keys() == {"loss", "metadata"}
        torch.testing.assert_close(output["loss"], parser(**graphs)["loss"])
        output["loss"].backward()
        assert built.model.semantic_parser.graph_head.arc_scorer.attention._weight_matrix.grad.any()
        assert all(parameter.grad is None for parameter in built.model.classifier.parameters())
        metrics = built.model.get_metrics(reset=True)
        assert metrics["_parser_labeled_f1"] > 0.5

    def test_a_batch_of_graphs_is_predicted_by_the_parser(self, parser):
        built = Built()
        found, expected = (model.make_output_human_readable(model(**built.graphs())) for model in (built.model, parser))
        assert found == expected and any(found["arcs"])

    def test_both_corpora_and_without_the_parsers_archive(self, corpus, tmp_path):
        """As `allennlp train` does; the model's archive is complete in itself."""
        archive = tmp_path / "parser.tar.gz"
        shutil.copyfile(ARCHIVE, archive)
        path = tmp_path / "config.jsonnet"
        path.write_text(
            f"""
            local config = import '{FOLDER / "latent"}.jsonnet';
            config {{
              train_data_path+: {{ sentiment: '{corpus}' }}, validation_data_path: '{corpus}',
              vocabulary+: {{ directory: '{archive}' }},
              model+: {{ semantic_parser+: {{ archive_file: '{archive}' }}, dropout: 0.0, vector_dropout: 0.0 }},
              trainer+: {{ optimizer+: {{ lr: 0.01 }}, num_epochs: 12, cuda_device: -1 }},
            }}
            """
        )
        model = train_model(Params.from_file(str(path)), tmp_path / "run")
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["best_validation_accuracy"] == 1.0
        assert metrics["training__parser_labeled_f1"] > 0.6
        learned = dict(model.semantic_parser.named_parameters())
        before = dict(load_archive(archive).model.named_parameters())
        assert any(not torch.equal(learned[name], before[name]) for name in before)

        archive.unlink()
        shutil.move(tmp_path / "run" / "model.tar.gz", tmp_path / "moved.tar.gz")
        shutil.rmtree(tmp_path / "run")
        predictor = Predictor.from_path(str(tmp_path / "moved.tar.gz"))
        assert type(predictor) is SentenceClassifierPredictor
        output = predictor.predict("The critic hated it, nobody liked it.")
        assert list(output) == ["words", "label", "probabilities", "arcs"]
        assert output["words"][-1] == "." and output["arcs"][0].keys() == {"dependent", "head", "label"}
        for line in SENTENCES:
            label, text = line.split("\t")
            assert predictor.predict_tokenized(text.split())["label"] == label
        for name, parameter in predictor._model.semantic_parser.named_parameters():
            assert torch.equal(parameter, learned[name])


class TestRefusals:
    @pytest.mark.parametrize(
        "keys, message",
        [
            ({"graph": "gold"}, "graph is 'gold'; valid: 'latent', 'none'"),
            ({"hidden_size": 1}, "SemanticThenSentiment has no key 'hidden_size'; valid: "),
            (
                {"structure": "projective_tree"},
                "structure is 'projective_tree'; valid: 'labeled_arc_graph', 'arc_graph'",
            ),
            ({"semantic_parser": None}, "graph is 'latent', but there is no semantic_parser. Valid: "),
        ],
        ids=str,
    )
    def test_config(self, keys, message):
        with pytest.raises(ConfigurationError) as error:
            Built(**keys)
        assert message in str(error.value)

    def test_an_archive_of_something_else(self, monkeypatch):
        monkeypatch.setenv("SPIGOT_SEMANTIC_PARSER_ARCHIVE", str(FIXTURES / "models" / "syntactic_parser.tar.gz"))
        with pytest.raises(
            ConfigurationError, match="semantic_parser is a SyntacticParser, which scores no graphs; valid: "
        ):
            Built()

    def test_no_archive(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SPIGOT_SEMANTIC_PARSER_ARCHIVE", str(tmp_path / "none.tar.gz"))
        with pytest.raises((ConfigurationError, FileNotFoundError), match="none.tar.gz"):
            Built()

    def test_a_parser_that_needs_gold_trees(self):
        gold = Model.from_archive(str(ARCHIVE))
        gold.syntax = "gold"
        built = Built("none")
        with pytest.raises(ConfigurationError, match="trained with the syntax 'gold'"):
            type(built.model)(built.vocab, built.model.text_encoder.text_field_embedder, semantic_parser=gold)

    def test_a_vocabulary_that_does_not_begin_with_the_parsers(self, parser):
        built = Built("none")
        vocab = Vocabulary.from_instances(built.instances)
        vocab.add_tokens_to_namespace(["unheard", "of"], "tokens")
        embedder = built.model.text_encoder.text_field_embedder
        with pytest.raises(
            ConfigurationError, match="this model's vocabulary has 'unheard' at 2 of namespace 'tokens'"
        ):
            type(built.model)(vocab, embedder, semantic_parser=parser)

    def test_batches(self):
        built = Built()
        batch = built.batch()
        with pytest.raises(ConfigurationError, match="has no 'parser_tokens'.*'parser_token_indexers'"):
            built.model(batch["tokens"], batch["metadata"])
        with pytest.raises(ConfigurationError, match="a training batch has neither labels nor gold graphs"):
            built.model.train()(batch["tokens"], batch["metadata"], batch["parser_tokens"])
