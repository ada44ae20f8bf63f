"""
The surrogate belongs to the loss of one instance: `c * surrogate(g)` reaches the scores, whatever a trainer makes of
the instances' losses. Seen from the parameters of a model that shares its encoder between scorer and downstream model.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional
from unittest import mock

import pytest
import torch
from allennlp.common import Params
from torch.utils.checkpoint import checkpoint

from spigot_allennlp.estimators import Estimator, EstimatorOutput, identity, perturbation, perturbed, relaxed
from spigot_allennlp.structures import LatentStructure, ProjectiveTree

# In one pass: a gradient at z that does not come from the instances' losses has no meaning for them.
ONE_PASS = {
    "ste": {"type": "ste", "step_size": 0.5},
    "spigot": {"type": "spigot"},
    "spigot_clipped": {"type": "spigot", "max_gradient_norm": 0.5},
    "spigot_ce_of_marginals": {"type": "spigot_ce", "forward_map": "marginals"},
    "spigot_eg_of_marginals": {"type": "spigot_eg", "forward_map": "marginals"},
    "pulled_back": {
        "type": "pulled_back",
        "start": "sparsemap",
        "forward_map": "sparsemap",
        "intermediate_loss": "sparsemap",
    },
    "blackbox": {"type": "blackbox", "interpolation": 5.0},
    "imle": {"type": "imle", "interpolation": 5.0},
}
# As a term of the loss.
LOSS_TERM = {
    "spigot_ce": {"type": "spigot_ce"},
    "spigot_eg": {"type": "spigot_eg"},
    "spigot_two_steps": {"type": "spigot", "num_steps": 2, "step_size": 0.5},
    "pulled_back_three_steps": {
        "type": "pulled_back",
        "start": "marginals",
        "update": "exponentiated_gradient",
        "intermediate_loss": "sparsemap",
        "num_steps": 3,
    },
}
# By autograd through the value itself.
DIFFERENTIABLE = {
    "identity": {"type": "identity", "projection": "standardized", "noise_scale": 0.1},
    "gumbel_sparsemap": {"type": "gumbel_sparsemap"},
    "perturbed": {"type": "perturbed", "noise": "gumbel", "num_samples": 2},
    "sparse_marginalization": {"type": "sparse_marginalization"},
}
ESTIMATORS = {**ONE_PASS, **LOSS_TERM, **DIFFERENTIABLE}
# Their gradients are a multiple of the downstream gradient.
LINEAR = {"ste", *DIFFERENTIABLE}


@pytest.fixture(params=range(4))
def name(request: pytest.FixtureRequest) -> str:
    """Four of the estimators, others for each test."""
    names = list(ESTIMATORS)
    start = zlib.crc32(request.function.__name__.encode())
    return names[(start + 4 * request.param) % len(names)]


STRUCTURE: LatentStructure = ProjectiveTree()


def noise_of_the_instance(scores: torch.Tensor, num_selected: Optional[torch.Tensor] = None) -> torch.Tensor:
    """Looks random, and is the same in every batch, process and pass."""
    return torch.sin(50 * scores.double()).to(scores.dtype)


@pytest.fixture(autouse=True)
def fixed_noise() -> Iterator[None]:
    with patched_noise():
        yield


@contextmanager
def patched_noise() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(perturbation, "sum_of_gamma", noise_of_the_instance))
        for module in (identity, perturbed, relaxed):
            stack.enter_context(mock.patch.object(module, "gumbel", noise_of_the_instance))
        yield


class Batch(NamedTuple):
    inputs: torch.Tensor  # (batch, tokens, 3)
    mask: torch.Tensor  # (batch, tokens)
    gold: torch.Tensor  # (batch, tokens, 2)

    def on(self, rows: slice) -> "Batch":
        """Some of the instances, without the padding that the others made."""
        width = int(self.mask[rows].sum(1).max())
        return Batch(self.inputs[rows, :width], self.mask[rows, :width], self.gold[rows, :width])


def batch(dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    inputs, gold = (torch.randn(4, 6, size, generator=generator, dtype=torch.float64).to(dtype) for size in (3, 2))
    return Batch(inputs, torch.arange(6) < torch.tensor([5, 6, 3, 4])[:, None], gold)


class Model(torch.nn.Module):
    """An encoder, a scorer of arcs, and words that look at their heads to predict two numbers each."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.encoder = torch.nn.Linear(3, 4, dtype=dtype)
            self.scorer = torch.nn.Linear(4, 4, bias=False, dtype=dtype)
            self.composer = torch.nn.Linear(4, 4, dtype=dtype)
            self.output = torch.nn.Linear(4, 2, dtype=dtype)
        self.estimator = Estimator.from_params(Params(dict(ESTIMATORS[name])))
        self.loss_factor = 3.0
        self.checkpoint_downstream = False

    def estimate(self, given: Batch) -> EstimatorOutput:
        states = torch.tanh(self.encoder(given.inputs))
        scores = 2 * self.scorer(states) @ states.transpose(1, 2)

        def downstream(z: torch.Tensor) -> dict[str, torch.Tensor]:
            # shape: (batch, tokens, 4)
            composed = torch.tanh(self.composer(z.to(states.dtype) @ states) + states)
            predicted = self.output(composed)
            losses = self.loss_factor * ((predicted - given.gold) ** 2).sum(-1)
            return {"predicted": predicted, "instance_loss": (losses * given.mask).sum(-1)}

        if self.checkpoint_downstream:
            return self.estimator(
                scores, given.mask, STRUCTURE, lambda z: checkpoint(downstream, z, use_reentrant=False)
            )
        return self.estimator(scores, given.mask, STRUCTURE, downstream)

    def forward(self, given: Batch) -> torch.Tensor:
        return self.estimate(given).instance_loss


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def learn(name: str, given: Batch, combine: Callable[[torch.Tensor], torch.Tensor] = torch.sum) -> dict[str, Any]:
    """The gradients of a total loss, which `combine` makes of the instances' losses."""
    model = Model(name, given.inputs.dtype)
    combine(model(given)).backward()
    return gradients(model)


def assert_same(
    found: dict[str, torch.Tensor],
    expected: dict[str, torch.Tensor],
    factor: float = 1.0,
    relative: float = 1e-6,
) -> None:
    """Norm-wise, for each parameter."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = (found[name] / factor - gradient).norm()
        assert gradient.norm() > 0, f"{name} learns nothing, which shows nothing"
        assert difference <= relative * gradient.norm(), f"{name}: {difference / gradient.norm()}"


class TestWhatTrainersDo:
    def test_loss_scale(self, name):
        for dtype in (torch.float32, torch.float64):
            given = batch(dtype)
            plain = learn(name, given)
            for scale in (0.25, 65_536.0, 1 / 3):
                # A division by 3 rounds every number of the backward pass anew.
                relative = 1e-5 if scale == 1 / 3 and dtype == torch.float32 else 1e-6
                assert_same(learn(name, given, lambda losses, c=scale: c * losses.sum()), plain, scale, relative)

    def test_weighted_instances_in_any_company(self, name):
        """What a batch gives with weights is what its instances give alone, times their weights."""
        weights = torch.tensor([1.0, 0.0, -0.3, 20.0], dtype=torch.float64)
        together = learn(name, batch(), lambda losses: weights @ losses)
        alone = [learn(name, batch().on(slice(row, row + 1))) for row in range(4)]
        expected = {key: sum(w * one[key] for w, one in zip(weights, alone)) for key in together}
        assert_same(together, expected)

    def test_the_scale_of_the_instance_loss_itself_does_matter(self, name):
        """It is part of the downstream model: the surrogate is not linear in it, or this suite would show nothing."""
        model = Model(name)
        model.loss_factor *= 20
        model(batch()).sum().backward()
        expected = learn(name, batch())["scorer.weight"]
        relative = (gradients(model)["scorer.weight"] / 20 - expected).norm() / expected.norm()
        assert relative < 1e-6 if name in LINEAR else relative > 1e-2

    def test_gradient_accumulation(self, name):
        whole = learn(name, batch())
        model = Model(name)
        for rows in (slice(0, 2), slice(2, 4)):
            (model(batch().on(rows)).sum() / 2).backward()
        assert_same(gradients(model), whole, factor=0.5)

    def test_a_loss_used_twice(self, name):
        """`c` is the sum over all uses."""
        given = batch()
        with torch.no_grad():
            losses = Model(name)(given)
        expected = learn(name, given, lambda found: ((0.25 + 2 * losses) * found).sum())
        assert_same(learn(name, given, lambda found: found.mean() + (found**2).sum()), expected)

    def test_backward_twice(self, name):
        model = Model(name)
        losses = model(batch())
        losses.sum().backward(retain_graph=True)
        once = gradients(model)
        (2 * losses).sum().backward()
        assert_same(gradients(model), once, factor=3)

    def test_checkpointed_downstream_model(self, name):
        plain = learn(name, batch())
        model = Model(name)
        model.checkpoint_downstream = True
        model(batch()).sum().backward()
        assert_same(gradients(model), plain)

    def test_checkpointed_model(self, name):
        plain = learn(name, batch())
        for use_reentrant in (False, True):
            model = Model(name)
            given = batch()
            inputs = given.inputs.requires_grad_()
            losses = checkpoint(
                lambda x, model=model, given=given: model(given._replace(inputs=x)), inputs, use_reentrant=use_reentrant
            )
            (1000 * losses).sum().backward()
            assert_same(gradients(model), plain, factor=1000)

    def test_without_gradients(self, name):
        model = Model(name)
        with torch.no_grad():
            losses = model(batch())
        assert not losses.requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(model(batch()), losses)

    def test_a_frozen_scorer(self, name):
        """Scores without gradients are no error, and the downstream model learns what it learned before."""
        plain = learn(name, batch())
        model = Model(name)
        model.scorer.requires_grad_(False)
        model.encoder.requires_grad_(False)
        model(batch()).sum().backward()
        found = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
        assert_same(found, {key: plain[key] for key in found})
        assert model.scorer.weight.grad is None


class TestOtherGradients:
    @pytest.mark.parametrize("name", ONE_PASS)
    def test_one_that_does_not_come_from_the_losses_is_an_error(self, name):
        output = Model(name).estimate(batch())
        with pytest.raises(RuntimeError, match="does not come from EstimatorOutput.instance_loss"):
            output.outputs["predicted"].sum().backward()

    @pytest.mark.parametrize("name", ONE_PASS)
    def test_also_after_one_that_does(self, name):
        output = Model(name).estimate(batch())
        output.instance_loss.sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="does not come from EstimatorOutput.instance_loss"):
            output.outputs["predicted"].sum().backward()


def scaled_step(model: Model, given: Batch, scaler: torch.amp.GradScaler, lr: float = 0.01) -> bool:
    """A step of SGD under automatic mixed precision, in the order of AllenNLP's trainer: whether it was taken."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    optimizer.zero_grad()
    scaler.scale(model(given).mean()).backward()
    scaler.unscale_(optimizer)
    before = model.scorer.weight.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    return not torch.equal(model.scorer.weight, before)


class TestMixedPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, name, dtype):
        """Scores in half precision: the same gradients at any scale that the type can hold."""
        given = batch(torch.float32)
        found = []
        for scale in (1.0, 1024.0):
            model = Model(name, torch.float32)
            with torch.autocast("cpu", dtype):
                losses = model(given)
            (scale * losses.sum()).backward()
            found.append(gradients(model))
        # Small gradients in float16 lose digits, more so without a scale.
        assert_same(found[1], found[0], factor=1024, relative=1e-6 if dtype == torch.bfloat16 else 0.02)

    def test_gradient_scaler(self, name):
        given = batch(torch.float32)
        plain = learn(name, given, torch.mean)
        model = Model(name, torch.float32)
        assert scaled_step(model, given, torch.amp.GradScaler("cpu", init_scale=65_536.0))
        assert_same(gradients(model), plain)

    def test_an_overflow_skips_the_step(self, name):
        """The scaler sees it as such and comes down to a scale that works; nothing hangs and no NaN stays."""
        given = batch(torch.float32)
        plain = learn(name, given, torch.mean)
        model = Model(name, torch.float32)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
        taken = [scaled_step(model, given, scaler)]
        assert not taken[0]
        while not taken[-1] and len(taken) < 30:
            taken.append(scaled_step(model, given, scaler))
        assert taken[-1]
        assert_same(gradients(model), plain)
        assert all(p.isfinite().all() for p in model.parameters())


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {}
    with patched_noise():
        for name in ESTIMATORS:
            model = torch.nn.parallel.DistributedDataParallel(Model(name))
            # Two batches each, without communication in between.
            with model.no_sync():
                (model(batch().on(slice(2 * rank, 2 * rank + 1))).mean() / 2).backward()
            (model(batch().on(slice(2 * rank + 1, 2 * rank + 2))).mean() / 2).backward()
            results[name] = gradients(model.module)
    if rank == 0:
        torch.save(results, Path(folder) / "gradients.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_workers_and_accumulation_against_one_batch(tmp_path):
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt")
    for name in ESTIMATORS:
        assert_same(found[name], learn(name, batch(), torch.mean))
