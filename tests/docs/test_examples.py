"""
The worked examples of `docs/`: the structure and the estimator get the template suites of the package's own, the task
is trained and predicts, the plain PyTorch program learns.
"""

import json
import runpy
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import DatasetReader
from allennlp.models import load_archive
from allennlp.predictors import Predictor

from docs.examples.rationale import ReviewDatasetReader, Span
from spigot_allennlp.estimators import Estimator
from tests.conftest import PROJECT_ROOT
from tests.enumeration import Case
from tests.estimators.estimator_test_case import DeterministicEstimatorTestCase
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase

EXAMPLES = PROJECT_ROOT / "docs" / "examples"
CONFIG = EXAMPLES / "rationale" / "config.jsonnet"


def spans(tokens: int) -> torch.Tensor:
    if not tokens:
        return torch.zeros(1, 0, dtype=torch.float64)
    vertices = [
        [float(first <= position <= last) for position in range(tokens)]
        for first in range(tokens)
        for last in range(first, tokens)
    ]
    return torch.tensor(vertices, dtype=torch.float64)


class TestSpan(PrefixMaskTestCase, NonEmptyTestCase):
    case = Case({"type": "span"}, lambda tokens: (tokens,), spans, spans, max_tokens=5)


@pytest.mark.slow
class TestSpanOfManyTokens(PrefixMaskTestCase, NonEmptyTestCase):
    case = Case({"type": "span"}, lambda tokens: (tokens,), spans, spans, max_tokens=9)


class TestCenteredIdentity(DeterministicEstimatorTestCase):
    params = {"type": "centered_identity", "step_size": 0.5}

    def expected_gradient(self, given):
        legal = given.oracle.legal
        gradient = given.downstream.gradient(given.oracle.argmax(given.scores)) * legal
        centered = [
            0.5 * (row - row.sum() / max(1, int(parts.sum()))) * parts
            for row, parts in zip(gradient, legal, strict=True)
        ]
        return torch.stack(centered)


@pytest.fixture
def config() -> Dict[str, Any]:
    return Params.from_file(str(CONFIG)).as_dict(quiet=True)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rationale") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT_ROOT)
        train_model(Params.from_file(str(CONFIG)), str(directory))
    return directory


def test_the_task_is_learned(archive: Path):
    metrics = json.loads((archive / "metrics.json").read_text())
    assert metrics["best_validation_accuracy"] > 0.85


def test_the_task_predicts(archive: Path):
    predictor = Predictor.from_archive(load_archive(archive / "model.tar.gz"))
    output = predictor.predict_json(predictor.load_line("the plot , as everyone told me , is dreadful\n"))
    assert set(output) == {"label", "rationale"}
    assert output["label"] == "negative"
    assert output["rationale"] and output["rationale"] in "the plot , as everyone told me , is dreadful"


@pytest.mark.parametrize("name", ["marginals", "score_function", "centered_identity"])
def test_the_task_takes_other_estimators(name: str, config: Dict[str, Any], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)
    params = {**config, "model": {**config["model"], "estimator": name}}
    params["trainer"] = {**params["trainer"], "num_epochs": 1}
    model = train_model(Params(params), str(tmp_path / "run"))
    assert type(model.estimator) is Estimator.by_name(name)


@pytest.mark.parametrize("line", ['{"text": "fine"}', "fine", "[1]"])
def test_the_reader_names_file_and_line(line: str, tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"text": "fine", "label": "positive"}\n' + line + "\n")
    reader = DatasetReader.from_params(Params({"type": "reviews"}))
    assert isinstance(reader, ReviewDatasetReader)
    with pytest.raises(ConfigurationError, match=r"bad\.jsonl, line 2"):
        list(reader.read(tmp_path / "bad.jsonl"))


def test_a_structure_without_a_primitive_is_refused_when_the_model_is_built(config: Dict[str, Any]):
    class WithoutSums(Span):
        _log_partition = Span.__mro__[1]._log_partition

    Estimator.from_params(Params({"type": "spigot"})).check(WithoutSums())
    with pytest.raises(ConfigurationError, match="WithoutSums.*does not support"):
        Estimator.from_params(Params({"type": "marginals"})).check(WithoutSums())


def test_plain_pytorch_learns():
    """Better than what the words of a sentence tell without a tree."""
    assert runpy.run_path(str(EXAMPLES / "plain_pytorch.py"))["main"](num_epochs=3) > 0.9


def test_span_of_a_long_text():
    """Against the best sum of a run by Kadane's algorithm."""
    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best, current = -float("inf"), 0.0
    for score in scores[0].tolist():
        current = max(current, 0.0) + score
        best = max(best, current)
    span = Span().argmax(scores, torch.ones(1, 40, dtype=torch.bool))
    assert (span * scores).sum().item() == pytest.approx(best)
