"""What the tests of the classifiers with a latent structure share; those with trees share most."""

import json
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Optional, Set, Type

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.testing import ModelTestCase
from allennlp.data import Batch, DatasetReader, Instance, Vocabulary
from allennlp.models import Model

from tests.models.configs import check_an_estimator_each


def indexed(reader: DatasetReader, instances: List[Instance]) -> List[Instance]:
    """What `reader.read` does to instances, and `text_to_instance` does not."""
    for instance in instances:
        reader.apply_token_indexers(instance)
    return instances


def mean_cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return -sum(row[gold] for row, gold in zip(logits.log_softmax(-1), label)) / len(label)


class BuiltClassifier:
    """A model, built as from a config, in evaluation mode, and some labelled instances."""

    def __init__(self, params: Dict[str, Any], instances: List[Instance], vocab: Optional[Vocabulary] = None) -> None:
        self.instances = instances
        self.vocab = vocab or Vocabulary.from_instances(instances)
        torch.manual_seed(1)
        self.model = Model.from_params(Params(params), vocab=self.vocab).eval()

    def batch(self, numbers: Optional[List[int]] = None) -> Dict[str, Any]:
        batch = Batch(self.instances if numbers is None else [self.instances[number] for number in numbers])
        batch.index_instances(self.vocab)
        return batch.as_tensor_dict()


class ConfigsTestCase(ModelTestCase):
    """
    # Parameters (class attributes)

    folder : `Path`
        Where the configs are.
    others : `Set[str]`
        Those beside `latent`.
    """

    folder: ClassVar[Path]
    others: ClassVar[Set[str]]

    def test_an_estimator_each(self):
        check_an_estimator_each(self.folder, self.others)

    def check_train_save_and_load(self, name: str, path: Path, corpus: str, ignored: Set[str], **keys: Any) -> None:
        """Of the config called `name`, at `path`; `ignored` are parameters that need no gradient."""
        if name in ("blackbox", "imle"):
            # The first gradients are small. Far from the scores their argmax differs, and the estimate is not 0.
            keys["model.estimator"] = {"type": name, "interpolation": 1000.0}
        changes = json.dumps(keys)
        self.ensure_model_can_train_save_and_load(str(path), gradients_to_ignore=ignored, overrides=changes)
        self.set_up_model(str(path), corpus, seed=3)
        self.ensure_batch_predictions_are_consistent()


def overrides(corpus: str, **keys: Any) -> Dict[str, Any]:
    """`keys`, and those that make one epoch on one small file of any config for latent trees."""
    return {
        "train_data_path": corpus,
        "validation_data_path": corpus,
        # One batch, in the same order each time.
        "data_loader.batch_sampler.padding_noise": 0.0,
        "trainer.num_epochs": 1,
        "trainer.cuda_device": -1,
        **keys,
    }


class LatentTreeConfigsTestCase(ConfigsTestCase):
    others = {"none"}

    def test_the_baseline(self):
        assert Params.from_file(str(self.folder / "none.jsonnet"))["model"]["tree"] == "none"

    def check_config(self, name: str, corpus: str, **keys: Any) -> None:
        """`name`: a config, or the estimator of `latent`, as the external variable says it."""
        # What a constant adds to all arcs changes no tree.
        ignored = {"arc_scorer.score.bias"} if name != "none" else set()
        path = self.folder / f"{name if name in self.others else 'latent'}.jsonnet"
        self.check_train_save_and_load(name, path, corpus, ignored, **overrides(corpus, **keys))


class LatentTreeTestCase:
    """
    # Parameters (class attributes)

    name : `str`
        The model's type.
    built : `Type[BuiltClassifier]`
        Takes keys of the model.
    """

    name: ClassVar[str]
    built: ClassVar[Type[BuiltClassifier]]

    def test_the_loss_is_the_mean_cross_entropy(self):
        built = self.built()
        batch = built.batch()
        output = built.model(**batch)
        torch.testing.assert_close(output["loss"], mean_cross_entropy(output["logits"], batch["label"]))
        accuracy = built.model.get_metrics(reset=True)["accuracy"]
        assert accuracy == (output["logits"].argmax(-1) == batch["label"]).double().mean().item()

    def test_diagnostics(self):
        built = self.built(estimator={"type": "spigot", "step_size": 1000.0})
        built.model.train()(**built.batch())["loss"].backward()
        metrics = built.model.get_metrics(reset=True)
        assert metrics.keys() == {
            "accuracy",
            "tree_depth",
            "_arcs_changed",
            "_pull_back_distance",
            "_surrogate_nonzero",
            "_score_rms",
            "_mean_score_rms",
        }
        assert metrics["_pull_back_distance"] > 0 and metrics["_arcs_changed"] > 0
        built.model.eval()(**built.batch())
        assert built.model.get_metrics(reset=True).keys() == {"accuracy", "tree_depth"}

    @pytest.mark.parametrize(
        "keys, message",
        [
            ({"tree": "gold"}, "tree is 'gold'; valid: 'latent', 'none'"),
            ({"hidden_size": 100}, "{name} has no key 'hidden_size'; valid: "),
            (
                {"structure": "linear_chain"},
                "structure is 'linear_chain', whose parts are (batch, positions, tags, tags)",
            ),
        ],
        ids=str,
    )
    def test_refused_keys(self, keys, message):
        with pytest.raises(ConfigurationError) as error:
            self.built(**keys)
        assert message.format(name=Model.by_name(self.name).__name__) in str(error.value)

    def test_a_vocabulary_without_labels(self):
        embedder = {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 6}}}
        params = {"type": self.name, "text_field_embedder": embedder}
        with pytest.raises(ConfigurationError, match="the vocabulary has no labels"):
            Model.from_params(Params(params), vocab=Vocabulary())

    def test_training_without_labels(self):
        built = self.built()
        batch = built.batch()
        del batch["label"]
        with pytest.raises(ConfigurationError, match="a training batch has no labels"):
            built.model.train()(**batch)
