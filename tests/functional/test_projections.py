import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spigot_allennlp.functional import projections
from spigot_allennlp.functional.projections import (
    project_box,
    project_budget,
    project_labeled_arcs_jointly,
    project_labeled_arcs_sequential,
    project_simplex,
)

INF = float("inf")

# Hypothesis likes to repeat values and to draw round ones: ties and points on kinks.
vectors = hnp.arrays(
    "float64", st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-3, 3, width=16)
).map(torch.from_numpy)
scales = st.sampled_from([1.0, 1e-3, 1e4])


def assert_nearest(point, projection, vertices, scale=1.0):
    """
    The projection p of v onto the hull is characterised by `<v - p, y - p> <= 0` for every vertex y and
    p in the hull (which the caller checks).
    """
    residual = point - projection
    gaps = (residual.unsqueeze(-2) * (vertices - projection.unsqueeze(-2))).sum(-1)
    assert gaps.max() <= 1e-9 * scale


def subsets(size, budget):
    return torch.tensor(
        [y for y in itertools.product([0.0, 1.0], repeat=size) if sum(y) <= budget], dtype=torch.float64
    )


@settings(max_examples=60, deadline=None)
@given(vectors, scales, st.floats(-100, 100))
def test_simplex_is_the_nearest_distribution(values, scale, shift):
    values = values * scale + shift
    before = values.clone()
    projection = project_simplex(values)
    assert torch.equal(values, before)
    assert projection.min() >= 0
    torch.testing.assert_close(projection.sum(-1), torch.ones(len(values), dtype=torch.float64))
    assert_nearest(values, projection, torch.eye(values.size(-1), dtype=torch.float64), scale + 100)


@settings(max_examples=60, deadline=None)
@given(vectors, scales, st.data())
def test_the_vectorised_form_agrees_with_the_kernel(values, scale, data):
    values = values * scale
    forbidden = data.draw(hnp.arrays("bool", values.shape))
    values = values.masked_fill(torch.from_numpy(forbidden), -INF)
    total = torch.rand(len(values), dtype=torch.float64)
    total[0] = 0.0
    torch.testing.assert_close(
        projections._simplex_by_sorting(values, total), projections._simplex_by_kernel(values, total)
    )


@settings(max_examples=60, deadline=None)
@given(vectors, scales, st.sampled_from([0, 0.5, 1, 2, 3.25, 6]))
def test_budget_is_the_nearest_point_within_the_budget(values, scale, budget):
    values = values * scale
    before = values.clone()
    projection = project_budget(values, budget)
    assert torch.equal(values, before)
    assert projection.min() >= 0 and projection.max() <= 1
    assert projection.sum(-1).max() <= budget + 1e-9
    if float(budget).is_integer():
        assert_nearest(values, projection, subsets(values.size(-1), budget), scale)
    # For any budget: p = clip(v - tau, 0, 1), one tau >= 0 a row, and tau = 0 unless the budget is used up.
    spare = projection.sum(-1) < budget - 1e-9
    torch.testing.assert_close(projection[spare], values[spare].clamp(0, 1))
    for point, nearest in zip(values, projection, strict=True):
        free = (nearest > 1e-9) & (nearest < 1 - 1e-9)
        threshold = (point - nearest)[free]
        if len(threshold):
            assert threshold.max() - threshold.min() <= 1e-9 * scale and threshold.min() >= -1e-9 * scale


def test_box_is_a_clip():
    values = torch.tensor([-INF, -1.0, 0.25, 7.0])
    assert project_box(values).tolist() == [0, 0, 0.25, 1]


@pytest.mark.parametrize("project", [project_simplex, lambda v, mask: project_budget(v, 1.5, mask)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_entries_do_not_count(project, dtype):
    torch.manual_seed(0)
    values = torch.randn(2, 3, 7, dtype=dtype)
    mask = torch.rand(2, 3, 7) < 0.6
    mask[0, 0] = False
    projection = project(values, mask)
    assert projection.dtype == dtype and projection.shape == values.shape
    assert (projection[~mask] == 0).all()
    for row, legal, expected in zip(values.flatten(0, 1), mask.flatten(0, 1), projection.flatten(0, 1), strict=True):
        if legal.any():
            alone = project(row[legal], torch.ones_like(row[legal], dtype=torch.bool))
            torch.testing.assert_close(expected[legal], alone)
    torch.testing.assert_close(
        project(values.masked_fill(~mask, -INF), torch.ones_like(mask)), projection, rtol=0, atol=0
    )
    values.requires_grad_()
    (gradient,) = torch.autograd.grad((project(values, mask) * torch.randn_like(values)).sum(), values)
    assert (gradient[~mask] == 0).all() and gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_and_tiny_values_are_exact(dtype):
    values = torch.tensor([[1e4, 1e4 - 0.5, -1e4, 0.0], [-1e4, -1e4, -1e4, -2e4]], dtype=dtype)
    expected = torch.tensor([[0.75, 0.25, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0]], dtype=dtype)
    torch.testing.assert_close(project_simplex(values), expected)
    torch.testing.assert_close(project_budget(values, 1)[0], expected[0])
    torch.testing.assert_close(
        project_simplex(torch.full((1000,), 1e-30, dtype=dtype)), torch.full((1000,), 1e-3, dtype=dtype)
    )


def test_a_long_row_in_single_precision():
    torch.manual_seed(0)
    values = torch.randn(3, 10_000) * 0.01
    single, double = project_simplex(values), project_simplex(values.double())
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)
    assert (single.sum(-1) - 1).abs().max() < 1e-4


def test_many_rows_are_shared_among_threads():
    torch.manual_seed(0)
    values = torch.randn(5000, 11)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        several = project_simplex(values)
        torch.set_num_threads(1)
        assert torch.equal(several, project_simplex(values))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0,)])
def test_nothing_to_project(shape):
    assert project_simplex(torch.zeros(shape)).shape == shape
    assert project_budget(torch.zeros(shape), 1).shape == shape


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match="budget.*-1"):
        project_budget(torch.zeros(3), -1)


@pytest.mark.parametrize(
    "project",
    [project_simplex, project_box, lambda v: project_budget(v, 1.3), lambda v: project_budget(v, 3)],
)
def test_gradients(project):
    torch.manual_seed(0)
    values = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(project, values)
    torch.autograd.gradgradcheck(project, values)


@pytest.mark.parametrize("project", [project_labeled_arcs_sequential, project_labeled_arcs_jointly])
def test_gradients_of_labeled_arcs(project):
    torch.manual_seed(0)
    arcs = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(project, (arcs, labels))
    torch.autograd.gradgradcheck(project, (arcs, labels))


@settings(max_examples=60, deadline=None)
@given(vectors, scales)
def test_joint_projection_of_labeled_arcs_is_the_nearest(values, scale):
    point = values * scale
    arcs, labels = project_labeled_arcs_jointly(point[:, 0], point[:, 1:])
    projection = torch.cat([arcs.unsqueeze(-1), labels], dim=-1)
    assert projection.min() >= 0 and arcs.max() <= 1 + 1e-12
    torch.testing.assert_close(labels.sum(-1), arcs)
    # No arc, or the arc with one label.
    num_labels = labels.size(-1)
    vertices = torch.zeros(num_labels + 1, num_labels + 1, dtype=torch.float64)
    vertices[1:, 0] = 1
    vertices[1:, 1:] = torch.eye(num_labels)
    assert_nearest(point, projection, vertices, scale)


@settings(max_examples=60, deadline=None)
@given(vectors.filter(lambda v: v.size(-1) > 1), scales)
def test_sequential_projection_of_labeled_arcs(values, scale):
    point = values * scale
    arcs, labels = project_labeled_arcs_sequential(point[:, 0], point[:, 1:])
    torch.testing.assert_close(arcs, point[:, 0].clamp(0, 1))
    torch.testing.assert_close(labels.sum(-1), arcs)
    assert labels.min() >= 0 and (labels[arcs == 0] == 0).all()
    vertices = torch.eye(labels.size(-1), dtype=torch.float64) * arcs[:, None, None]
    assert_nearest(point[:, 1:], labels, vertices, scale)


@pytest.mark.parametrize("project", [project_labeled_arcs_sequential, project_labeled_arcs_jointly])
def test_forbidden_arcs_and_labels(project):
    arcs = torch.tensor([-INF, 2.0, 2.0], requires_grad=True)
    labels = torch.tensor([[1.0, 2.0], [-INF, 0.3], [-INF, -INF]], requires_grad=True)
    projected = project(arcs, labels)
    assert projected[0].tolist() == [0, 1, 0]
    assert projected[1].tolist() == [[0, 0], [0, 1], [0, 0]]
    gradients = torch.autograd.grad(sum((p * torch.randn_like(p)).sum() for p in projected), (arcs, labels))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][0] == 0 and (gradients[1][0] == 0).all() and (gradients[1][2] == 0).all()


def test_the_two_projections_of_labeled_arcs_differ():
    """Peng et al.'s is feasible but farther: the labels' scores cannot raise the arc."""
    arcs, labels = torch.tensor([0.0]), torch.tensor([[1.0, 0.0]])
    assert project_labeled_arcs_sequential(arcs, labels)[0].item() == 0
    assert project_labeled_arcs_jointly(arcs, labels)[0].item() == 0.5
