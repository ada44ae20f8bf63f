"""
Every operation of every structure, and every estimator: on either route, on either device, as on the CPU in float64.
Without a GPU the CPU plays the device, so that the batched paths are at least walked; `-m gpu` needs one.
"""

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from allennlp.common import Params

from spigot_allennlp.estimators import Estimator, perturbation, relaxed
from spigot_allennlp.functional import routes
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import STRUCTURES, Problem, problem, run, structure_of
from tests.structures.structure_test_case import OPERATIONS

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
ESTIMATORS = sorted(
    name for name in Estimator.list_available() if Estimator.by_name(name).__module__.startswith("spigot_allennlp.")
)


gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


# On the CPU the host route is the reference itself.
@pytest.fixture(
    params=[
        ("cpu", True),
        pytest.param(("cuda", True), marks=gpu),
        pytest.param(("cuda", False), marks=gpu),
    ],
    ids=["cpu, batched", "cuda, batched", "cuda, host"],
)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the scores are; the route is chosen on the way."""
    device, batched = request.param
    with mock.patch.object(routes, "batched_on_device", lambda operation, scores: batched):
        yield device


def large(name: str, tokens: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Beyond enumeration, with padding and a row of nothing else."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.tensor([tokens, tokens - 5, 2, CASES[name].min_tokens, 0])
    mask = torch.arange(tokens) < lengths[:, None]
    return torch.randn(len(lengths), *CASES[name].shape(tokens), generator=generator, dtype=torch.double), mask


def assert_as_on_the_cpu(found: torch.Tensor, expected: torch.Tensor, device: str, dtype: torch.dtype) -> None:
    assert found.device.type == device and found.dtype == dtype
    torch.testing.assert_close(found.cpu().double(), expected, **TOLERANCE)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_structure(name: str, dtype: torch.dtype, device: str) -> None:
    structure = structure_of(name)
    exact_scores, mask = large(name)
    scores, there = exact_scores.to(device, dtype).requires_grad_(), mask.to(device)
    direction = torch.randn_like(exact_scores)
    best = structure.argmax(exact_scores, mask)
    for operation in OPERATIONS:
        if operation == "sample":
            samples = structure.sample(scores, there, 3)
            assert samples.device.type == device and samples.dtype == dtype
            assert structure.log_prob(samples, scores, there).isfinite().all()
            continue
        arguments = {"top_k": (4,)}.get(operation, ())
        found_at, expected_at = scores, exact_scores.clone().requires_grad_()
        if operation == "log_prob":
            found = structure.log_prob(best.to(device, dtype), scores, there)
            expected = structure.log_prob(best, expected_at, mask)
        else:
            found = getattr(structure, operation)(scores, there, *arguments)
            with mock.patch.object(routes, "batched_on_device", lambda operation, scores: False):
                expected = getattr(structure, operation)(expected_at, mask, *arguments)
        if operation == "top_k":
            # Which of equals comes first does not matter, how good they are does.
            found, expected = found[1], expected[1]
        assert_as_on_the_cpu(found.detach(), expected.detach(), device, dtype)
        if operation in ("argmax", "top_k"):
            continue
        weights = direction if expected.shape == direction.shape else torch.randn(expected.shape, dtype=torch.double)
        (found,) = torch.autograd.grad((found * weights.to(device, dtype)).sum(), found_at)
        (expected,) = torch.autograd.grad((expected * weights).sum(), expected_at)
        assert_as_on_the_cpu(found, expected, device, dtype)


def noise(scores: torch.Tensor, *_: object) -> torch.Tensor:
    """The same on every device."""
    return torch.sin(50 * scores.double()).to(scores.dtype)


def moved(given: Problem, device: str) -> Problem:
    downstream = given.downstream.to(device)
    downstream.inputs, downstream.targets = downstream.inputs.to(device), downstream.targets.to(device)
    return given._replace(scores=given.scores.to(device), mask=given.mask.to(device), downstream=downstream)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("structure_name", STRUCTURES)
def test_estimator(name: str, structure_name: str, device: str) -> None:
    estimator = Estimator.from_params(Params({"type": name}))
    sampled = name == "score_function" and "tree" not in structure_name
    if sampled and device != "cpu":
        pytest.skip("its samples come from the device's own random state")
    with mock.patch.object(perturbation, "sum_of_gamma", noise), mock.patch.object(relaxed, "gumbel", noise):
        found = run(estimator.to(device), moved(problem(structure_name, seed=3), device))
        with mock.patch.object(routes, "batched_on_device", lambda operation, scores: False):
            expected = run(Estimator.from_params(Params({"type": name})), problem(structure_name, seed=3))
    pairs = [(found.output.value, expected.output.value), (found.gradient, expected.gradient)]
    pairs += [(found.parameters[key], expected.parameters[key]) for key in expected.parameters]
    for ours, theirs in pairs:
        assert_as_on_the_cpu(ours.detach(), theirs.detach(), device, torch.double)
