"""Classification with a latent cluster: every estimator, the baselines, and the configs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.common.testing import ModelTestCase
from allennlp.data import Vocabulary
from allennlp.models import Model, load_archive

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.models import LatentClusterClassifier
from tests.conftest import PROJECT_ROOT
from tests.models.configs import ESTIMATORS

FOLDER = PROJECT_ROOT / "training_configs" / "clusters"


def configuration(epochs: int = 2, updates: int = 1, lr: float = 1e-2, noise: float = 0.1, **model: Any) -> dict:
    return {
        "random_seed": 1,
        "numpy_seed": 1,
        "pytorch_seed": 1,
        "dataset_reader": {
            "type": "latent_clusters",
            "num_clusters": 3,
            "num_features": 10,
            "train_size": 300,
            "validation_size": 60,
            "noise": noise,
        },
        "train_data_path": "train",
        "validation_data_path": "validation",
        "vocabulary": {"type": "empty"},
        "model": {"type": "latent_cluster_classifier", "num_clusters": 3, "num_features": 10, **model},
        "data_loader": {"type": "full_batch", "batches_per_epoch": updates},
        "validation_data_loader": {"type": "full_batch"},
        "trainer": {"optimizer": {"type": "adam", "lr": lr}, "num_epochs": epochs, "cuda_device": -1},
    }


def classifier(**keys: Any) -> LatentClusterClassifier:
    params = Params({"type": "latent_cluster_classifier", "num_clusters": 3, "num_features": 4, **keys})
    return Model.from_params(params, vocab=Vocabulary())


class TestTrainSaveLoad(ModelTestCase):
    def check(self, **model: Any) -> None:
        keys = configuration(**model)
        # AllenNLP's test replaces the batch sizes of loaders that have them.
        keys["data_loader"] = keys["validation_data_loader"] = {"batch_size": 100}
        path = self.TEST_DIR / "config.json"
        path.write_text(json.dumps(keys))
        self.ensure_model_can_train_save_and_load(str(path))

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_estimator(self, estimator: str):
        self.check(estimator=estimator)

    @pytest.mark.parametrize("cluster", ["gold", "none"])
    def test_cluster_that_is_not_predicted(self, cluster: str):
        self.check(cluster=cluster)


def test_bilinear():
    torch.manual_seed(0)
    features, clusters = torch.randn(5, 4), torch.tensor([0, 2, 1, 2, 0])
    model = classifier(cluster="gold").eval()
    logits = model.decoder(torch.nn.functional.one_hot(clusters, 3).float(), features)
    torch.testing.assert_close(model(features, cluster=clusters)["logits"], logits)
    model = classifier(estimator={"type": "marginals", "relaxed_evaluation": True}).eval()
    output = model(features)
    value = model.scorer(features).softmax(-1)
    torch.testing.assert_close(output["cluster_value"], value)
    torch.testing.assert_close(output["logits"], model.decoder(value, features))


def test_exact_gradient_of_the_expected_loss():
    torch.manual_seed(0)
    features, labels = torch.randn(6, 4), torch.tensor([0, 1, 1, 0, 1, 0])
    model = classifier(estimator="minimum_risk").train()
    model(features, label=labels)["loss"].backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    probabilities, risk = model.scorer(features).softmax(-1), 0.0
    for cluster in range(3):
        value = torch.eye(3)[cluster].expand(6, 3).contiguous()
        losses = torch.nn.functional.cross_entropy(model.decoder(value, features), labels, reduction="none")
        risk = risk + (probabilities[:, cluster] * losses).mean()
    risk.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_pipeline_learns_no_clusters():
    model = classifier(estimator="pipeline").train()
    model(torch.randn(6, 4), label=torch.tensor([0, 1, 1, 0, 1, 0]))["loss"].backward()
    assert model.scorer.weight.grad is None and model.decoder.weight.grad.abs().max() > 0


def test_clusters_are_learned_without_being_seen(tmp_path: Path):
    keys = configuration(epochs=2, updates=100, lr=0.03, noise=0.3, estimator="minimum_risk")
    train_model(Params(keys), tmp_path / "latent")
    train_model(Params(configuration(epochs=2, updates=100, lr=0.03, noise=0.3, cluster="none")), tmp_path / "none")
    latent, none = (
        json.loads((tmp_path / name / "metrics.json").read_text())["validation_accuracy"] for name in ("latent", "none")
    )
    assert latent > none + 0.1
    assert json.loads((tmp_path / "latent" / "metrics.json").read_text())["validation_v_measure"] > 0.3
    # What was saved gives what training ended with.
    archive = load_archive(tmp_path / "latent" / "model.tar.gz")
    instances = list(archive.validation_dataset_reader.read("validation"))
    outputs = archive.model.forward_on_instances(instances)
    correct = [output["label"] == instance["label"].label for output, instance in zip(outputs, instances)]
    best = json.loads((tmp_path / "latent" / "metrics.json").read_text())["best_validation_accuracy"]
    assert sum(correct) / len(correct) == pytest.approx(best)
    assert set(outputs[0]) == {"label", "probabilities", "cluster"}
    assert sum(outputs[0]["probabilities"]) == pytest.approx(1.0, abs=1e-3)


def test_metrics():
    model = classifier(estimator="spigot")
    features, clusters, labels = torch.randn(6, 4), torch.arange(6) % 3, torch.arange(6) % 2
    model(features, clusters, labels)["loss"].backward()
    assert set(model.get_metrics(reset=True)) == {
        "accuracy",
        "v_measure",
        "_pull_back_distance",
        "_arcs_changed",
        "_surrogate_nonzero",
        "_score_rms",
        "_mean_score_rms",
    }
    model.eval()
    with torch.no_grad():
        model.scorer.weight.zero_()
        model.scorer.weight[:, :3] = torch.eye(3)
    model(torch.nn.functional.one_hot(clusters, 4).float(), clusters, labels)
    assert model.get_metrics()["v_measure"] == 1.0
    assert set(classifier(cluster="gold").get_metrics()) == {"accuracy"}


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"cluster": "silver"}, "'silver'.*'latent', 'gold', 'none'"),
        ({"num_clusters": 0}, "num_clusters is 0"),
        ({"num_features": 0}, "num_features is 0"),
        ({"structure": "projective_tree"}, "whose parts are .*valid: one whose parts are values, .*'categorical'"),
        ({"num_cluster": 2}, "num_clusters"),
    ],
)
def test_bad_keys(keys, message):
    with pytest.raises(ConfigurationError, match=message):
        classifier(**keys)


def test_bad_batches():
    features = torch.randn(2, 4)
    with pytest.raises(ConfigurationError, match="no labels"):
        classifier()(features)
    with pytest.raises(ConfigurationError, match="no gold clusters"):
        classifier(cluster="gold").eval()(features)
    with pytest.raises(ConfigurationError, match="from 1 to 3; valid: 0 to 2"):
        classifier(cluster="gold").eval()(features, cluster=torch.tensor([1, 3]))
    with pytest.raises(ConfigurationError, match=r"\(2, 5\); valid: \(batch, 4\)"):
        classifier().eval()(torch.randn(2, 5))


def test_the_configs():
    assert {path.stem for path in FOLDER.glob("*.jsonnet")} == {"latent", "gold", "none"}


@pytest.mark.parametrize("name", [*ESTIMATORS, "gold", "none"])
def test_config(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPIGOT_NUM_CLUSTERS", "4")
    monkeypatch.setenv("SPIGOT_ESTIMATOR", name)
    params = Params.from_file(FOLDER / f"{name if name in ('gold', 'none') else 'latent'}.jsonnet")
    assert params["dataset_reader"]["num_clusters"] == params["model"]["num_clusters"] == 4
    model = Model.from_params(params["model"], vocab=Vocabulary())
    estimator = getattr(model, "estimator", None)
    assert estimator is None if name in ("gold", "none") else type(estimator) is Estimator.by_name(name)
    assert params["trainer"]["num_epochs"] * params["data_loader"]["batches_per_epoch"] == 10_000
