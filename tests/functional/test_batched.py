"""
The batched paths, which scores on a GPU may take, exercised on the CPU: against enumeration by the template suites,
against the compiled kernels, and on tensors of a device without memory, where every step off the device is an error.
"""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from spigot_allennlp.functional import (
    hypergraphs,
    independent,
    linear_chain,
    nonprojective,
    projections,
    projective,
    routes,
    subsets,
)
from spigot_allennlp.functional.nonprojective import batched as nonprojective_batched
from spigot_allennlp.functional.nonprojective import maximum, sums
from spigot_allennlp.functional.nonprojective import sample as nonprojective_sample
from spigot_allennlp.functional.projective import argmax, inside_outside, sample, top_k
from spigot_allennlp.functional.projective import batched as projective_batched
from spigot_allennlp.functional.trees import arcs_from_heads
from tests.functional import test_nonprojective, test_projective
from tests.functional.tree_functions_test_case import SCORES, dtypes, legal_arcs, prefix_mask, roots

# ------------------------------------------------------------------------------------------ against enumeration


@pytest.mark.usefixtures("batched_paths")
class TestBatchedProjective(test_projective.TestProjective):
    # Log-sums of shorter slices add up in another order.
    padding_tolerance = dict.fromkeys([torch.float32, torch.float64], {"atol": 1e-12, "rtol": 1e-6})
    # Samples take the host route; derivatives are compared with those of the kernels below.
    test_frequencies = test_marginals_of_longer_sentences = test_samples_repeat_with_the_seed = test_gradcheck = None


@pytest.mark.usefixtures("batched_paths")
class TestBatchedNonprojective(test_nonprojective.TestNonprojective):
    # Products of matrices may round differently in another place of a batch; see the test of the bounds instead.
    test_padded_is_alone_and_order_does_not_matter = None
    test_frequencies = test_marginals_of_longer_sentences = test_samples_repeat_with_the_seed = test_gradcheck = None


# -------------------------------------------------------------------------------------- against the kernels


def batch(kind: str, dtype: torch.dtype, tokens: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    """NaN wherever there is no arc, some arcs forbidden in every other sentence."""
    torch.manual_seed(tokens)
    lengths = [0, 1, 2, 3, *range(5, tokens + 1, 2), tokens]
    mask = prefix_mask(lengths, tokens)
    scores = SCORES[kind]((len(lengths), tokens, tokens)).to(dtype)
    scores[::2] = scores[::2].masked_fill(torch.rand(scores[::2].shape) < 0.1, -float("inf"))
    return scores.masked_fill(~legal_arcs(mask), float("nan")), mask


@dtypes
@roots
@pytest.mark.parametrize("kind", SCORES)
def test_projective_trees_are_the_same_ties_included(kind: str, single_root: bool, dtype: torch.dtype) -> None:
    scores, mask = batch(kind, dtype)
    expected = projective.projective_heads(scores, mask, single_root)
    assert torch.equal(projective_batched.projective_heads(scores, mask, single_root), expected)


@dtypes
@roots
@pytest.mark.parametrize("kind", SCORES)
def test_inside_outside(kind: str, single_root: bool, dtype: torch.dtype) -> None:
    scores, mask = batch(kind, dtype)
    direction = torch.randn_like(scores)
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-9}[dtype]
    for given in (None, direction):
        found = projective_batched.inside_outside(scores, mask, single_root, given)
        expected = inside_outside._inside_outside(scores, mask, single_root, given)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@dtypes
@roots
@pytest.mark.parametrize("kind", SCORES)
def test_errors_of_the_matrix_tree_theorem_are_bounded(kind: str, single_root: bool, dtype: torch.dtype) -> None:
    scores, mask = batch(kind, dtype)
    direction = torch.randn(scores.shape)
    tolerance = {torch.float32: 1e-7, torch.float64: 1e-10}[dtype]
    expected = sums._log_partitions_by_kernel(scores, mask, single_root)
    for given in ((), (direction,)):
        log_partition, parts, certified = nonprojective_batched.matrix_tree(scores, mask, single_root, *given)
        assert log_partition.dtype == parts.dtype == torch.double
        reference = torch.from_numpy(sums.marginals_by_kernel(scores, mask, single_root, *given))
        error = (parts - reference).abs()[certified].max() / direction.abs().max()
        assert error <= tolerance
        torch.testing.assert_close(
            log_partition[certified], torch.from_numpy(expected)[certified], atol=tolerance, rtol=1e-12
        )
        # Not by giving everything up.
        assert certified[mask.sum(1) < 2].all()
        if kind in ("normal", "equal", "ties", "shifted rows"):
            assert certified[expected > -np.inf].all()
        if kind == "loops" and dtype == torch.double and not single_root:
            assert not certified[mask.sum(1) > 5].any()


@roots
def test_batched_paths_call_no_kernel(single_root: bool, batched_paths: None) -> None:
    scores, mask = batch("normal", torch.double)
    scores[::2] = torch.randn_like(scores[::2])
    scores.requires_grad_()
    kernels = [(argmax, "_argmax"), (inside_outside, "_inside_outside_kernel"), (projections, "_simplex_kernel")]
    kernels += [(sums, "_log_partitions_kernel"), (sums, "_marginals_kernel")]
    with contextlib.ExitStack() as stack:
        for module, kernel in kernels:
            stack.enter_context(mock.patch.object(module, kernel, side_effect=AssertionError))
        heads = projective.projective_heads(scores, mask, single_root)
        found = [
            projective.projective_log_partition(scores, mask, single_root),
            projective.projective_marginals(scores, mask, single_root),
            nonprojective.nonprojective_log_partition(scores, mask, single_root),
            nonprojective.nonprojective_marginals(scores, mask, single_root),
            projections.project_simplex(scores, legal_arcs(mask)),
        ]
        for value in found:
            assert value.detach().isfinite().all() and value.any()
            (gradient,) = torch.autograd.grad((value**2).sum(), scores)
            assert gradient.isfinite().all() and gradient.any()
    assert (heads >= 0).any()


# -------------------------------------------------------------------------------- on a device without memory


@pytest.fixture
def device() -> Iterator[str]:
    """
    Tensors of device "meta" have no numbers; in this mode it is an error to mix them with those of the CPU, and to ask
    for their values.
    """
    with FakeTensorMode():
        yield "meta"


def given(device: str) -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 6, dtype=torch.bool, device=device)
    scores = torch.randn(3, 6, 6, device=device, requires_grad=True)
    return {"scores": scores, "mask": mask, "legal": mask[:, 1:, None] & mask[:, None, 1:]}


STAY: dict[str, Callable] = {
    "projective argmax": lambda s, m, _: projective_batched.projective_heads(s, m, True),
    "inside-outside": lambda s, m, _: projective_batched.inside_outside(s, m, True),
    "its derivative": lambda s, m, _: projective_batched.inside_outside(s, m, True, torch.randn_like(s)),
    "matrix-tree": lambda s, m, _: nonprojective_batched.matrix_tree(s, m, True),
    "derivative of matrix-tree": lambda s, m, _: nonprojective_batched.matrix_tree(s, m, False, torch.randn_like(s)),
    "simplex": lambda s, m, _: projections._simplex_by_sorting(s, s.new_ones(s.shape[:-1])),
    "box": lambda s, m, _: projections.project_box(s),
    "independent choices": lambda s, m, legal: [
        independent.argmax(s[:, 1:, 1:], legal),
        independent.log_partition(s[:, 1:, 1:], legal),
        independent.marginals(s[:, 1:, 1:], legal),
        independent.sample(s[:, 1:, 1:], legal, 2),
        *independent.top_k(s[:, 1:, 1:], legal, 3),
    ],
    "subsets": lambda s, m, legal: [
        subsets.argmax(s[:, 1:, 1:], legal, 2),
        subsets.log_partition(s[:, 1:, 1:], legal, 2),
        subsets.sample(s[:, 1:, 1:], legal, 2, 2),
        *subsets.top_k(s[:, 1:, 1:], legal, 2, 3),
    ],
    "sums over tag sequences": lambda s, m, _: [
        linear_chain.chain_log_partition(s.unsqueeze(-1).expand(-1, -1, -1, 6), m),
        linear_chain.chain_marginals(s.unsqueeze(-1).expand(-1, -1, -1, 6), m),
        linear_chain.chain_sample(s.unsqueeze(-1).expand(-1, -1, -1, 6), m, 2),
    ],
    "arcs": lambda s, m, _: arcs_from_heads(m.long()),
}


@pytest.mark.parametrize("name", STAY)
def test_stays_on_the_device(name: str, device: str) -> None:
    results = STAY[name](*given(device).values())
    for result in results if isinstance(results, (tuple, list)) else (results,):
        assert result.device.type == device


def chain(scores: torch.Tensor) -> torch.Tensor:
    return scores.unsqueeze(-1).expand(-1, -1, -1, 6)


# One of 36 parts, for each of 3 instances.
OPTIONS = hypergraphs.hypergraph([(1, 0, 0, np.arange(36))], 2), np.ones(3, np.int64)

HOST_ROUTES: dict[str, Callable] = {
    "projective_heads": lambda s, m: projective.projective_heads(s, m),
    "projective_log_partition": lambda s, m: projective.projective_log_partition(s, m),
    "projective_marginals": lambda s, m: projective.projective_marginals(s, m),
    "projective_sample": lambda s, m: projective.projective_sample(s, m, 2),
    "projective_top_k": lambda s, m: projective.projective_top_k(s, m, 2),
    "nonprojective_heads": lambda s, m: nonprojective.nonprojective_heads(s, m),
    "nonprojective_log_partition": lambda s, m: nonprojective.nonprojective_log_partition(s, m),
    "nonprojective_marginals": lambda s, m: nonprojective.nonprojective_marginals(s, m),
    "nonprojective_sample": lambda s, m: nonprojective.nonprojective_sample(s, m, 2),
    "nonprojective_top_k": lambda s, m: nonprojective.nonprojective_top_k(s, m, 2),
    "chain_argmax": lambda s, m: linear_chain.chain_argmax(chain(s), m),
    "chain_top_k": lambda s, m: linear_chain.chain_top_k(chain(s), m, 2),
    "project_simplex": lambda s, m: projections.project_simplex(s),
    "hypergraph_argmax": lambda s, m: hypergraphs.hypergraph_argmax(s.flatten(1), *OPTIONS),
    "hypergraph_log_partition": lambda s, m: hypergraphs.hypergraph_log_partition(s.flatten(1), *OPTIONS),
    "hypergraph_marginals": lambda s, m: hypergraphs.hypergraph_marginals(s.flatten(1), *OPTIONS),
    "hypergraph_sample": lambda s, m: hypergraphs.hypergraph_sample(s.flatten(1), *OPTIONS, 2),
    "hypergraph_top_k": lambda s, m: hypergraphs.hypergraph_top_k(s.flatten(1), *OPTIONS, 2),
}


@pytest.mark.parametrize("name", HOST_ROUTES)
def test_host_routes_go_through_the_runtime(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back, forwards and backwards: whatever else reads a tensor of the device raises."""
    seen = []

    def to_numpy(tensor: torch.Tensor) -> np.ndarray:
        seen.append(tensor.device.type)
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        # Scores of 0 and lengths that fit: tokens, or words.
        return np.full(tuple(tensor.shape), 5 if dtype == np.int64 and tensor.dim() == 1 else 0, dtype)

    def from_numpy(array: np.ndarray, like: torch.Tensor, dtype: torch.dtype = None) -> torch.Tensor:
        dtype = dtype or getattr(torch, array.dtype.name)
        return torch.empty(array.shape, dtype=dtype, device=like.device)

    inputs = given(device)
    for module in (
        argmax,
        inside_outside,
        sample,
        top_k,
        maximum,
        sums,
        nonprojective_sample,
        hypergraphs,
        linear_chain,
        projections,
    ):
        monkeypatch.setattr(module, "to_numpy", to_numpy)
        monkeypatch.setattr(module, "from_numpy", from_numpy)
    results = HOST_ROUTES[name](inputs["scores"], inputs["mask"])
    results = results if isinstance(results, tuple) else (results,)
    for result in results:
        if result.requires_grad:
            (gradient,) = torch.autograd.grad(result.sum(), inputs["scores"], retain_graph=True)
            assert gradient.device.type == device
    assert device in seen
    assert all(result.device.type == device for result in results)


# -------------------------------------------------------------------------------------------------- the rule


def on_cuda(batch_size: int, words: int) -> torch.Tensor:
    """As far as the rule can tell."""
    with FakeTensorMode():
        return torch.empty(batch_size, words + 1, words + 1, device="cuda")


@pytest.mark.parametrize("operation", routes._COSTS)
def test_the_rule(operation: str) -> None:
    with mock.patch.object(torch, "get_num_threads", return_value=1):
        # What is small is not worth the launches, what is large is worth them.
        assert not routes.batched_on_device(operation, on_cuda(8, 5))
        assert routes.batched_on_device(operation, on_cuda(10000, 100))
        # The CPU's own tensors, and those of devices that may lack what the batched paths need.
        assert not routes.batched_on_device(operation, torch.empty(1, 1, 1).expand(10000, 101, 101))
        assert not routes.batched_on_device(operation, torch.empty(10000, 101, 101, device="meta"))
        torch.use_deterministic_algorithms(True)
        try:
            assert not routes.batched_on_device(operation, on_cuda(10000, 100))
        finally:
            torch.use_deterministic_algorithms(False)
        assert not routes.batched_on_device(operation, on_cuda(0, 5))
    with mock.patch.object(torch, "get_num_threads", return_value=10**6):
        # With threads enough the kernels cost nothing but the way.
        assert not routes.batched_on_device(operation, on_cuda(300, 100))


def test_an_unknown_operation_is_an_error() -> None:
    with pytest.raises(KeyError, match="levitation"):
        routes.batched_on_device("levitation", on_cuda(3, 3))
