"""What is refused before anything is trained: wrong validation metrics, and data without what a model learns from."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List
from unittest import mock

import pytest
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Instance
from allennlp.data.data_loaders import MultiTaskDataLoader
from allennlp.data.fields import MetadataField
from allennlp.training import GradientDescentTrainer
from allennlp.training.metric_tracker import MetricTracker

from spigot_allennlp.data.supervision import GRAPHS, TREES
from spigot_allennlp.training.before_training import check_supervision
from tests.training.small import configuration, write_corpus


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    directory = tmp_path_factory.mktemp("corpora")
    both = write_corpus(directory / "both.conllu")
    trees = directory / "trees.conllu"
    lines = [line.split("\t") for line in both.read_text().splitlines()]
    without = ["\t".join([*line[:8], "_", line[9]] if len(line) == 10 else line) for line in lines]
    trees.write_text("\n".join(without) + "\n\n")
    return {"both": both, "trees": trees, "graphs": write_corpus(directory / "graphs.conllu", with_trees=False)}


def train(directory: Path, params: Dict[str, Any]) -> None:
    train_model(Params(params), str(directory))


@pytest.fixture
def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_epoch(*_: Any) -> None:
        raise AssertionError("an epoch was begun")

    monkeypatch.setattr(GradientDescentTrainer, "_train_epoch", train_epoch)


@pytest.mark.parametrize("metric", ["+labelled_f1", ["+labeled_f1", "-lossy"]])
def test_a_metric_that_the_model_does_not_have(metric: Any, corpora: Dict[str, Path], tmp_path: Path, no_epoch: None):
    params = configuration(corpora["both"], trainer={"validation_metric": metric})
    with pytest.raises(ConfigurationError, match=r"'(labelled_f1|lossy)', but SyntacticThenSemantic .* labeled_f1, "):
        train(tmp_path / "run", params)


def test_a_metric_that_only_data_bring(corpora: Dict[str, Path], tmp_path: Path):
    """`uas` is there once a tree has been seen. As `null`, `grad_norm` is left out."""
    trainer = {"validation_metric": "+uas", "num_epochs": 1, "grad_norm": None}
    train(tmp_path / "run", configuration(corpora["both"], trainer=trainer))
    assert (tmp_path / "run" / "model.tar.gz").exists()


@pytest.mark.parametrize(
    ("training", "validation", "match"),
    [
        ("trees", "trees", r"training data \(8\) has graphs \(CoNLL-U: column 9, .*'syntactic_parser'"),
        ("both", "trees", r"validation data \(8\) has graphs \(CoNLL-U: column 9, .*'syntactic_parser'"),
        ("graphs", "graphs", r"training data \(8\) has trees \(CoNLL-U: column 7, .*'syntactic_loss_weight': 0"),
        ("both", "graphs", r"validation data \(8\) has trees \(CoNLL-U: column 7, .*'syntactic_loss_weight': 0"),
    ],
)
def test_an_absent_layer(
    training: str, validation: str, match: str, corpora: Dict[str, Path], tmp_path: Path, no_epoch: None
):
    params = configuration(corpora[training])
    params["validation_data_path"] = str(corpora[validation])
    with pytest.raises(ConfigurationError, match=match):
        train(tmp_path / "run", params)


def test_a_layer_that_is_not_supervised(corpora: Dict[str, Path], tmp_path: Path):
    train(tmp_path / "run", configuration(corpora["graphs"], syntactic_loss_weight=0.0, trainer={"num_epochs": 1}))
    assert (tmp_path / "run" / "model.tar.gz").exists()


class Loader(MultiTaskDataLoader):
    """Of several corpora, whose instances have these fields."""

    def __init__(self, *corpora: List[str]) -> None:
        self._corpora = corpora

    def iter_instances(self) -> Any:
        for fields in self._corpora:
            yield Instance({name: MetadataField(None) for name in fields})


class TestSeveralCorpora:
    model: Any = SimpleNamespace(
        supervision=lambda: {"arc_tags": GRAPHS, "head_indices": TREES._replace(essential=False)}
    )

    def check(self, training: Loader, validation: Loader, metric: str = "+labeled_f1") -> None:
        check_supervision(self.model, training, validation, MetricTracker(metric))

    def test_each_has_what_the_other_lacks(self):
        self.check(Loader(["arc_tags"], ["head_indices"]), Loader(["arc_tags"]))

    def test_none_has_it(self):
        with pytest.raises(ConfigurationError, match=r"training data \(2\) has trees"):
            self.check(Loader(["arc_tags"], ["arc_tags"]), Loader(["arc_tags"]))

    def test_validation_by_what_its_corpus_lacks(self):
        with pytest.raises(ConfigurationError, match="validation data .* has trees"):
            self.check(Loader(["arc_tags"], ["head_indices"]), Loader(["arc_tags"]), "+uas")

    def test_a_worker_whose_share_lacks_it(self):
        """Another one has it."""

        def gather(of_all: List[Any], fields: Any) -> None:
            of_all[:] = [fields, set()]

        with (
            mock.patch("spigot_allennlp.training.before_training.is_distributed", return_value=True),
            mock.patch("torch.distributed.get_world_size", return_value=2),
            mock.patch("torch.distributed.all_gather_object", gather),
        ):
            self.check(Loader(["arc_tags"]), Loader(["arc_tags"]))
