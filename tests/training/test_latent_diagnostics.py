"""What the diagnostics say, where it arrives, and that training does not notice."""

import json
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary
from allennlp.models import Model
from allennlp.training import TrainerCallback
from allennlp.training.metrics import Average
from tensorboardX.proto.event_pb2 import Event

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.structures import LatentStructure
from spigot_allennlp.training import LatentDiagnostics
from spigot_allennlp.training.latent_diagnostics import exact_gradient
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import (
    STRUCTURES,
    Downstream,
    LinearDownstream,
    assert_same,
    problem,
    run,
    structure_of,
)
from tests.training.small import configuration, write_corpus


def from_params(kind: Any, params: Any) -> Any:
    return kind.from_params(Params(dict(params)) if isinstance(params, dict) else params)


class Latent(Model):
    """Scores that are parameters, and a downstream model that is given: `names` are its estimators."""

    def __init__(
        self,
        downstream: Any,
        scores: torch.Tensor,
        mask: Optional[torch.Tensor],
        structure: LatentStructure,
        **estimators: Any,
    ) -> None:
        super().__init__(Vocabulary())
        self.scores = torch.nn.Parameter(scores)
        self.mask, self.structure, self.downstream = mask, structure, downstream
        self.names = list(estimators)
        for name, params in estimators.items():
            self.add_module(name, from_params(Estimator, params))
        self.dropout = torch.nn.Dropout(0.5)
        self.register_buffer("num_calls", torch.tensor(0))
        self.mean_loss = Average()

    def forward(self, gold: bool = True) -> dict[str, torch.Tensor]:
        self.num_calls += 1
        losses = []
        for name in self.names:
            estimate = self.get_submodule(name)(self.scores, self.mask, self.structure, self._downstream)
            if gold:
                losses.append(estimate.instance_loss.mean())
                self.mean_loss(losses[-1].item())
        return {"loss": sum(losses)}

    def _downstream(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        # The diagnostics do without dropout, or no value below would be right.
        return self.downstream(self.dropout(z))

    def get_metrics(self, reset: bool = False) -> dict[str, float]:
        return {"mean_loss": self.mean_loss.get_metric(reset)}


def diagnose(model: Model, max_structures: int = 64, batch: Optional[dict[str, Any]] = None) -> dict[str, float]:
    """What the callback adds to the metrics of a first batch."""
    trainer = SimpleNamespace(model=model.train())
    before = set(model.get_metrics())
    callback = LatentDiagnostics("", num_batches=100, max_structures=max_structures)
    callback.on_start(trainer)
    callback.on_batch(trainer, [batch or {}], [{}], {}, epoch=0, batch_number=1, is_training=True)
    metrics = model.get_metrics(reset=True)
    callback.on_end(trainer)
    assert set(model.get_metrics()) == before
    return {name: value for name, value in metrics.items() if name not in before}


def model_of(structure_name: str, estimator: Any, linear: bool = False, **options: Any) -> Latent:
    given = problem(structure_name, **options)
    downstream = LinearDownstream(given.downstream.targets) if linear else given.downstream
    return Latent(downstream, given.scores, given.mask, given.structure, estimator=estimator)


class TestExactGradient:
    @pytest.mark.parametrize("structure_name", STRUCTURES)
    def test_it_is_that_of_the_enumerated_expectation(self, structure_name):
        given = problem(structure_name, tokens=(3, 2, 2))
        scores = given.scores.clone().requires_grad_()
        expected = torch.zeros_like(scores)
        oracle, case = given.oracle, CASES[structure_name]
        for row, tokens in enumerate(oracle.tokens):
            vertices = case.vertices(tokens)
            alone = given.alone(row)
            compact = alone.scores.clone().requires_grad_()
            log_probs = (vertices * compact).flatten(1).sum(1).log_softmax(0)
            losses = torch.cat([alone.downstream.instance_loss(z.unsqueeze(0)) for z in vertices])
            (gradient,) = torch.autograd.grad((log_probs.exp() * losses.detach()).sum(), compact)
            case.compact(expected[row : row + 1], tokens).copy_(gradient)
        found = exact_gradient(given.scores, given.mask, given.structure, given.downstream, 10_000)
        assert_same(found, expected.flatten(1))

    def test_instances_with_more_structures_are_left_out_and_cost_nothing(self):
        # Single-rooted projective trees over 1, 2 and 3 words: 1, 2 and 7.
        given = problem("projective_tree", tokens=(4, 3, 2))
        gradient = exact_gradient(given.scores, given.mask, given.structure, given.downstream, 6)
        assert given.downstream.calls == 2
        assert (gradient[0] == 0).all()
        assert (gradient[1] != 0).any()
        assert (gradient[2] == 0).all(), "a single tree leaves nothing to learn"
        exact_gradient(given.scores[:1], given.mask[:1], given.structure, given.downstream, 6)
        assert given.downstream.calls == 2
        assert (exact_gradient(given.scores, given.mask, given.structure, given.downstream, 7)[0] != 0).any()

    def test_forbidden_parts_do_not_count(self):
        given = problem("projective_tree", tokens=(4,))
        # That leaves three of the seven trees.
        given.scores[0, 3, 0] = given.scores[0, 2, 0] = -torch.inf
        gradient = exact_gradient(given.scores, given.mask, given.structure, given.downstream, 6)
        assert given.downstream.calls == 3
        assert gradient.isfinite().all()
        assert (gradient != 0).any()

    def test_a_loss_that_ignores_the_structure_has_no_gradient(self):
        given = problem("projective_tree", dtype=torch.float32)

        def constant(z: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"instance_loss": torch.full((len(z),), 1.1)}

        assert (exact_gradient(given.scores, given.mask, given.structure, constant, 64) == 0).all()


class TestValues:
    def test_marginals_are_exact_for_a_linear_loss(self):
        metrics = diagnose(model_of("projective_tree", "marginals", linear=True))
        assert metrics["_estimator_gradient_cosine"] == pytest.approx(1.0, abs=1e-9)
        assert metrics["_estimator_cosine_coverage"] == 0.75, "of four instances, one has a single tree"

    def test_minimum_risk_over_all_structures_is_exact(self):
        metrics = diagnose(model_of("nonprojective_tree_multi_root", {"type": "minimum_risk", "k": 16}))
        assert metrics["_estimator_gradient_cosine"] == pytest.approx(1.0, abs=1e-9)

    def test_the_score_function_is_right_on_average(self):
        torch.manual_seed(0)
        estimator = {"type": "score_function", "num_samples": 3000, "baseline": "leave_one_out"}
        metrics = diagnose(model_of("projective_tree", estimator))
        assert 0.9 < metrics["_estimator_gradient_cosine"] < 1

    def test_an_inexact_one_is_somewhere_between(self):
        """The straight-through gradient of a linear loss is its weights, of the exact one their covariance with z."""
        given = problem("projective_tree")
        found = diagnose(model_of("projective_tree", "ste", linear=True))["_estimator_gradient_cosine"]
        weights = (given.downstream.targets * given.oracle.legal).flatten(1)
        scores = given.scores.clone().requires_grad_()
        (exact,) = torch.autograd.grad(given.structure.marginals(scores, given.mask).flatten(1), scores, weights)
        cosines = torch.nn.functional.cosine_similarity(exact.flatten(1), weights)
        # The third sentence is one word long.
        assert found == pytest.approx(cosines[[0, 1, 3]].mean().item(), abs=1e-6)
        assert abs(found) < 0.9

    def test_nothing_flows_through_a_pipeline(self):
        metrics = diagnose(model_of("projective_tree", "pipeline"))
        assert metrics["_estimator_gradient_cosine"] == 0
        assert metrics["_estimator_gradient_norm"] == 0

    def test_entropy_and_pull_back(self):
        given = problem("projective_tree")
        model = model_of("projective_tree", {"type": "spigot", "step_size": 5.0})
        metrics = diagnose(model)
        entropies = given.structure.entropy(given.scores, given.mask)
        assert metrics["_estimator_entropy"] == pytest.approx(entropies.mean().item())
        start = given.oracle.argmax(given.scores)
        gradient = given.downstream.gradient(start) * given.structure.legal_parts(given.scores, given.mask)
        pulled = given.oracle.project(start - 5.0 * gradient)
        distances = (start - pulled).flatten(1).norm(dim=1)
        assert metrics["_estimator_pull_back_distance"] == pytest.approx(distances.mean().item(), abs=1e-6)
        assert metrics["_estimator_gradient_norm"] == pytest.approx(distances.mean().item(), abs=1e-6)
        changed = ((start > 0.5) & (pulled <= 0.5)).flatten(1).sum(1) / start.flatten(1).sum(1)
        assert metrics["_estimator_arcs_changed"] == pytest.approx(changed.mean().item())

    def test_long_sentences_leave_the_cosine_out(self):
        metrics = diagnose(model_of("projective_tree", "spigot"), max_structures=1)
        assert math.isnan(metrics["_estimator_gradient_cosine"])
        assert metrics["_estimator_cosine_coverage"] == 0
        assert metrics["_estimator_entropy"] > 0

    def test_without_a_mask(self):
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(5, 4, generator=generator)
        model = Latent(Downstream(scores), scores, None, structure_of("categorical"), estimator="minimum_risk")
        assert diagnose(model)["_estimator_gradient_cosine"] == pytest.approx(1.0, abs=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        metrics = diagnose(model_of("projective_tree", "marginals", linear=True, dtype=dtype))
        assert metrics["_estimator_gradient_cosine"] == pytest.approx(1.0, abs=0.02)

    def test_two_estimators_have_metrics_of_their_own(self):
        given = problem("projective_tree")
        model = Latent(given.downstream, given.scores, given.mask, given.structure, first="pipeline", second="ste")
        metrics = diagnose(model)
        assert metrics["_first_gradient_norm"] == 0
        assert metrics["_second_gradient_norm"] > 0
        assert not any("arcs_changed" in name and "first" in name for name in metrics)

    def test_a_frozen_parser_is_watched_all_the_same(self):
        model = model_of("projective_tree", "spigot_ce")
        free = diagnose(model)
        model.requires_grad_(False)
        assert diagnose(model) == pytest.approx(free, rel=0, abs=0, nan_ok=True)

    def test_a_batch_without_gold_says_nothing(self):
        given = problem("projective_tree", gold=False)
        model = Latent(given.downstream, given.scores, given.mask, given.structure, estimator="spigot")
        metrics = diagnose(model, batch={"gold": False})
        assert metrics
        assert all(math.isnan(value) for value in metrics.values())


class TestTrainingDoesNotNotice:
    def test_gradients_metrics_buffers_and_random_state(self):
        model = model_of("projective_tree", {"type": "score_function", "num_samples": 2})
        model.mean_loss(5.0)
        model.scores.grad = torch.full_like(model.scores, 7.0)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        state = torch.get_rng_state()
        # Of the copy, not of this one.
        metrics = model.get_metrics()
        assert diagnose(model)["_estimator_gradient_norm"] > 0
        assert torch.equal(torch.get_rng_state(), state)
        assert (model.scores.grad == 7).all()
        assert all(p.grad is None for p in model.downstream.parameters())
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, buffers[name], rtol=0, atol=0, equal_nan=True)
        assert metrics == {"mean_loss": 5.0}
        assert model.training
        assert model.dropout.training

    @pytest.mark.parametrize(
        "estimator",
        ["spigot", {"type": "imle", "adaptive": True}, {"type": "score_function", "num_samples": 2}],
        ids=str,
    )
    def test_the_same_weights_with_and_without(self, tmp_path, estimator):
        corpus = write_corpus(tmp_path / "corpus.conllu")
        weight = {"type": "linear", "start": 1.0, "end": 0.0, "num_steps": 4}
        found = []
        for callbacks in ([], [{"type": "latent_diagnostics", "num_batches": 1}]):
            params = configuration(
                corpus,
                estimator,
                dropout=0.3,
                trainer={"callbacks": callbacks, "num_gradient_accumulation_steps": 2},
                batch_size=2,
                syntactic_loss_weight=weight,
            )
            directory = tmp_path / f"run{len(callbacks)}"
            model = train_model(Params(params), directory)
            metrics = json.loads((directory / "metrics.json").read_text())
            found.append((model.state_dict(), metrics))
        (plain, plain_metrics), (watched, watched_metrics) = found
        assert plain.keys() == watched.keys()
        for name in plain:
            assert torch.equal(plain[name], watched[name]), name
        added = watched_metrics.keys() - plain_metrics.keys()
        assert added and all(name.startswith("training__estimator_") for name in added)
        for name, value in plain_metrics.items():
            if not name.endswith(("_MB", "duration")):
                assert watched_metrics[name] == pytest.approx(value, nan_ok=True), name


def scalars(directory: Path) -> dict[str, list[float]]:
    """The scalars of the event files in a directory, by tag."""
    found = defaultdict(list)
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        # A record: its length in 8 bytes, their checksum in 4, the event, its checksum in 4.
        while data:
            length = int.from_bytes(data[:8], "little")
            for value in Event.FromString(data[12 : 12 + length]).summary.value:
                found[value.tag].append(value.simple_value)
            data = data[16 + length :]
    return found


@pytest.mark.gpu
def test_an_rnn_downstream_on_a_gpu():
    """cuDNN refuses gradients of an RNN that is in evaluation mode; on a GPU, too, the random state is put back."""
    given = problem("projective_tree", dtype=torch.float32)

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(given.scores.size(-1), 3, batch_first=True)

        def forward(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"instance_loss": self.rnn(z)[0].flatten(1).sum(1)}

    model = Latent(Reader(), given.scores, given.mask.cuda(), given.structure, estimator="perturb_and_map").cuda()
    state = torch.cuda.get_rng_state()
    metrics = diagnose(model)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert -1 <= metrics["_estimator_gradient_cosine"] <= 1


class TestSupervision:
    """What else of the model's loss reaches the same scores, whatever the weights of its terms."""

    def model(self, estimator: Any, weights: torch.Tensor) -> Model:
        class Supervised(Latent):
            def forward(self) -> dict[str, torch.Tensor]:
                supervised = (0.5 * weights * self.scores).flatten(1).sum(-1)
                return {"loss": super().forward()["loss"] + supervised.mean()}

        given = problem("projective_tree")
        return Supervised(given.downstream, given.scores, given.mask, given.structure, estimator=estimator)

    @pytest.mark.parametrize("estimator", ["spigot", "ste", "marginals", "pipeline"])
    def test_norm_and_cosine(self, estimator):
        given = problem("projective_tree")
        weights = torch.randn_like(given.scores)
        # The first instance has no supervision, and does not count.
        weights[0] = 0
        metrics = diagnose(self.model(estimator, weights))
        norms = (0.5 * weights[1:]).flatten(1).norm(dim=-1)
        assert metrics["_estimator_supervised_gradient_norm"] == pytest.approx(norms.mean().item(), rel=1e-5)
        surrogate = run(from_params(Estimator, estimator), given).gradient
        cosines = torch.nn.functional.cosine_similarity(weights.flatten(1), surrogate.flatten(1), dim=-1, eps=1e-30)
        found = metrics["_estimator_supervised_gradient_cosine"]
        assert found == pytest.approx(cosines[1:].mean().item(), rel=1e-5, abs=1e-12)

    def test_without_supervision_there_is_nothing_to_compare_with(self):
        metrics = diagnose(model_of("projective_tree", "spigot"))
        assert math.isnan(metrics["_estimator_supervised_gradient_norm"])
        assert math.isnan(metrics["_estimator_supervised_gradient_cosine"])


class TestWhereItArrives:
    def test_files_of_metrics_and_tensorboard(self, tmp_path):
        corpus = write_corpus(tmp_path / "corpus.conllu")
        callbacks = [
            {"type": "tensorboard", "summary_interval": 1},
            {"type": "latent_diagnostics", "num_batches": 2},
        ]
        train_model(Params(configuration(corpus, trainer={"callbacks": callbacks})), tmp_path / "run")
        names = {
            "entropy",
            "gradient_norm",
            "gradient_cosine",
            "cosine_coverage",
            "arcs_changed",
            "pull_back_distance",
            "surrogate_nonzero",
            "score_rms",
            "mean_score_rms",
            "supervised_gradient_norm",
            "supervised_gradient_cosine",
        }
        events = scalars(tmp_path / "run" / "log" / "train")
        for epoch in (0, 1):
            metrics = json.loads((tmp_path / "run" / f"metrics_epoch_{epoch}.json").read_text())
            assert {name for name in metrics if "__estimator_" in name} == {f"training__estimator_{n}" for n in names}
            for name in names:
                value = metrics[f"training__estimator_{name}"]
                assert math.isfinite(value)
                assert events[f"train/_estimator_{name}"][epoch] == pytest.approx(value, rel=1e-6)
        # Of two batches the second one sees what the first one gave.
        assert len(events["train/batch__estimator_entropy"]) == 2

    def test_num_batches_counts_within_the_epoch(self):
        model = model_of("projective_tree", "ste")
        trainer = SimpleNamespace(model=model.train())
        callback = LatentDiagnostics("", num_batches=3)
        callback.on_start(trainer)
        when = []
        for number in range(1, 9):
            calls = model.downstream.calls
            callback.on_batch(trainer, [{}], [{}], {}, epoch=0, batch_number=number, is_training=True)
            assert model.downstream.calls == calls
            when.append(len(callback._get_metrics(reset=False)) > 0)
            callback._get_metrics(reset=True)
            callback.on_batch(trainer, [{}], [{}], {}, epoch=0, batch_number=number, is_training=False)
            assert not callback._get_metrics(reset=False)
        assert when == [number in (1, 4, 7) for number in range(1, 9)]

    def test_validation_metrics_are_the_models_own(self):
        model = model_of("projective_tree", "ste")
        trainer = SimpleNamespace(model=model.train())
        callback = LatentDiagnostics("")
        callback.on_start(trainer)
        callback.on_batch(trainer, [{}], [{}], {}, epoch=0, batch_number=1, is_training=True)
        assert "_estimator_entropy" in model.get_metrics()
        assert set(model.eval().get_metrics()) == {"mean_loss"}


class TestBadInput:
    @pytest.mark.parametrize("key", ["num_batches", "max_structures"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_a_value_out_of_range(self, key, value):
        params = Params({"type": "latent_diagnostics", key: value})
        with pytest.raises(ConfigurationError, match=f"{key} is {value}"):
            TrainerCallback.from_params(params, serialization_dir="")

    def test_a_model_without_estimators(self):
        given = problem("projective_tree")
        model = Latent(given.downstream, given.scores, given.mask, given.structure)
        with pytest.raises(ConfigurationError, match="Latent has none"):
            LatentDiagnostics("").on_start(SimpleNamespace(model=model))
