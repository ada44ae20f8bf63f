import itertools
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.functional.nonprojective import nonprojective_heads
from spigot_allennlp.functional.projections import project_box, project_budget, project_simplex
from spigot_allennlp.functional.projective import projective_heads
from spigot_allennlp.functional.projective.argmax import best_heads
from spigot_allennlp.functional.sparsemap import TreeOracle, active_set, sparsemap_project
from spigot_allennlp.functional.sparsemap import projection as projection_module
from spigot_allennlp.functional.trees import arcs_from_heads
from tests import enumeration

INF = float("inf")
KINDS = list(itertools.product([True, False], [True, False]))  # projective, single root
HEADS = {True: projective_heads, False: nonprojective_heads}


def enumeration_oracle(vertices):
    """The best of a list of vertices, for any scores; -inf forbids."""

    def oracle(scores, rows):
        used = vertices.flatten(1) > 0
        totals = torch.where(used, scores.flatten(1).unsqueeze(1), 0.0).sum(-1)
        return vertices[totals.argmax(dim=1)]

    return oracle


def trees(num_words, projective, single_root):
    return enumeration.trees(num_words + 1, projective, single_root)


def duality_gaps(point, projection, vertices):
    residual = (point - projection).masked_fill(point == -INF, 0.0)
    allowed = ~((vertices > 0) & (point.unsqueeze(1) == -INF)).flatten(2).any(-1)
    totals = (residual.unsqueeze(1) * vertices).flatten(2).sum(-1).masked_fill(~allowed, -INF)
    return totals.max(dim=1).values - (residual * projection).flatten(1).sum(-1)


points = st.sampled_from(["continuous", "integers", "thirds", "constant"])


def draw_points(kind, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    if kind == "continuous":
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "constant":
        return torch.full(shape, 0.5, dtype=torch.float64)
    integers = torch.randint(-3, 4, shape, generator=generator).double()
    return integers if kind == "integers" else integers / 3


@settings(max_examples=80, deadline=None)
@given(
    points,
    st.integers(1, 4),
    st.sampled_from(KINDS),
    st.sampled_from([1e-3, 0.1, 1, 1e4]),
    st.integers(0, 999),
)
def test_nearest_point_of_the_tree_polytope(kind, num_words, which, scale, seed):
    vertices = trees(num_words, *which)
    point = draw_points(kind, (5, num_words + 1, num_words + 1), seed) * scale
    before = point.clone()
    solution = active_set(point, enumeration_oracle(vertices))
    assert torch.equal(point, before)
    assert solution.converged.all()
    assert duality_gaps(point, solution.projection, vertices).max() <= 1e-9 * max(scale, 1)
    # It is a mean of vertices, by the weights that are returned with them.
    assert solution.weights.min() >= 0
    torch.testing.assert_close(solution.weights.sum(-1), torch.ones(5, dtype=torch.float64))
    for weights, parts, projection in zip(solution.weights, solution.parts, solution.projection, strict=True):
        mean = torch.zeros_like(projection).flatten()
        for weight, indices in zip(weights, parts, strict=True):
            if weight > 0:
                vertex = torch.zeros_like(mean)
                vertex[indices[indices >= 0]] = 1
                assert (vertices.flatten(1) == vertex).all(-1).any()
                mean += weight * vertex
        torch.testing.assert_close(mean, projection.flatten())


@pytest.mark.parametrize("projective, single_root", KINDS)
@pytest.mark.parametrize("num_words", [1, 2, 3, 4])
def test_agrees_with_a_quadratic_programme(projective, single_root, num_words):
    torch.manual_seed(num_words)
    vertices = trees(num_words, projective, single_root)
    point = torch.randn(4, num_words + 1, num_words + 1, dtype=torch.float64)
    mask = torch.ones(4, num_words + 1, dtype=torch.bool)
    projection = sparsemap_project(point, TreeOracle(mask, projective, single_root))
    for row, expected in zip(point, projection, strict=True):
        reference = enumeration.Oracle(vertices, row).project(row)
        torch.testing.assert_close(expected, reference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("projective, single_root", KINDS)
@pytest.mark.parametrize("num_words, scale", [(10, 1.0), (25, 1.0), (25, 1e3), (50, 1.0)])
def test_duality_gap_of_long_sentences(projective, single_root, num_words, scale):
    """Padded to several lengths, started next to a vertex as SPIGOT does; the gap computed from scratch."""
    torch.manual_seed(num_words)
    mask = torch.arange(num_words + 1) <= torch.tensor([num_words, num_words // 2, 1])[:, None]
    scores, gradient = torch.randn(2, 3, num_words + 1, num_words + 1, dtype=torch.float64) * scale
    heads = HEADS[projective](scores, mask, single_root)
    start = arcs_from_heads(heads, torch.float64)
    point = start - gradient
    oracle = TreeOracle(mask, projective, single_root)
    solution = active_set(point, oracle)
    assert solution.converged.all()
    residual = point - solution.projection
    best = arcs_from_heads(HEADS[projective](residual, mask, single_root), torch.float64)
    gap = (residual * (best - solution.projection)).sum((1, 2))
    assert gap.max() <= 1e-9 * scale
    torch.testing.assert_close(solution.projection.sum(-1)[:, 1:], mask[:, 1:].double())
    # Padded = alone.
    for row, size in enumerate(mask.sum(-1)):
        alone = sparsemap_project(
            point[row : row + 1, :size, :size],
            TreeOracle(mask[row : row + 1, :size], projective, single_root),
        )[0]
        torch.testing.assert_close(alone, solution.projection[row, :size, :size], rtol=0, atol=1e-6)
        assert solution.projection[row].sum() == pytest.approx(size - 1)


def in_rounds(mask, projective, single_root):
    """The trees of `TreeOracle`, but by their argmax, of which `active_set` knows nothing more."""
    return lambda scores, rows: arcs_from_heads(HEADS[projective](scores, mask[rows], single_root))


def padded_points(kind, num_words, seed):
    """Points for sentences of several lengths, some without words, and some with forbidden arcs."""
    torch.manual_seed(seed)
    mask = torch.arange(num_words + 1) < torch.tensor([num_words + 1, 2, 0, num_words, 1, num_words + 1])[:, None]
    point = draw_points(kind, (len(mask), num_words + 1, num_words + 1), seed)
    point[3:] = point[3:].masked_fill(torch.rand(point[3:].shape) < 0.2, -INF)
    return point, mask


@settings(max_examples=30, deadline=None)
@given(points, st.integers(1, 14), st.sampled_from(KINDS), st.booleans(), st.integers(0, 999))
def test_compiled_iterations_over_trees(kind, num_words, which, cut_short, seed):
    """A sentence at a time in compiled code, or the whole batch in rounds of the oracle: the same projection."""
    point, mask = padded_points(kind, num_words, seed)
    limit = 2 if cut_short else 10_000
    with warnings.catch_warnings(), mock.patch.object(projection_module, "_MAX_ITERATIONS", limit):
        warnings.simplefilter("ignore")
        compiled, expected = (active_set(point, route(mask, *which)) for route in (TreeOracle, in_rounds))
    assert compiled.iterations.max() <= limit and (cut_short or compiled.converged.all())
    if cut_short and kind != "continuous":
        # Of equal vertices each may have taken another, to the same end, but not on the way there.
        return
    assert torch.equal(compiled.converged, expected.converged)
    torch.testing.assert_close(compiled.projection, expected.projection, rtol=0, atol=1e-9)
    torch.testing.assert_close(compiled.duality_gap, expected.duality_gap, rtol=0, atol=1e-8)
    # No tree, no weights.
    totals = compiled.weights.sum(-1)
    torch.testing.assert_close(totals, expected.weights.sum(-1))
    assert ((totals == 0) | (totals - 1).abs().le(1e-12)).all()


@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_chunks_and_threads_change_nothing(projective, compiled, monkeypatch):
    torch.manual_seed(0)
    mask = torch.arange(21) <= torch.randint(0, 21, (9, 1))
    point = torch.randn(9, 21, 21, dtype=torch.float64, requires_grad=True)
    oracle = TreeOracle(mask, projective, True)
    if not compiled:
        oracle = in_rounds(mask, projective, True)

    def results():
        projection = sparsemap_project(point, oracle)
        (gradient,) = torch.autograd.grad((projection * point.detach()).sum(), point)
        return projection, gradient, *active_set(point, oracle)

    expected = results()
    num_threads = torch.get_num_threads()
    try:
        for threads, chunk in itertools.product([1, 2], [1, 3 * 21 * 21, projection_module._CHUNK]):
            torch.set_num_threads(threads)
            monkeypatch.setattr(projection_module, "_CHUNK", chunk)
            assert all(torch.equal(result, same) for result, same in zip(results(), expected, strict=True))
    finally:
        torch.set_num_threads(num_threads)


@settings(max_examples=60, deadline=None)
@given(points, st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 999))
def test_argmax_of_one_sentence(kind, num_words, single_root, forbid, seed):
    """Equal to that of a batch, ties included."""
    point = draw_points(kind, (num_words + 1, num_words + 1), seed)
    if forbid:
        point[torch.rand(point.shape, generator=torch.Generator().manual_seed(seed)) < 0.3] = -INF
    heads = np.full(num_words + 1, -1)
    # Whatever is in the memory to work in.
    charts = np.full((6, num_words + 1, num_words + 9), np.nan)
    best_heads(point.numpy(), single_root, charts, heads)
    mask = torch.ones(1, num_words + 1, dtype=torch.bool)
    assert heads.tolist() == projective_heads(point[None], mask, single_root)[0].tolist()


@settings(max_examples=40, deadline=None)
@given(points, st.integers(1, 6), st.sampled_from([1.0, 30.0]), st.integers(0, 999))
def test_projections_with_a_formula(kind, size, scale, seed):
    point = draw_points(kind, (4, size), seed) * scale
    simplex = sparsemap_project(point, enumeration_oracle(torch.eye(size, dtype=torch.float64)))
    torch.testing.assert_close(simplex, project_simplex(point))
    # The empty set is a vertex here, and all vertices together are affinely dependent.
    subsets = torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)), dtype=torch.float64)
    box = sparsemap_project(point, lambda scores, rows: scores > 0)
    torch.testing.assert_close(box, project_box(point))
    budget = sparsemap_project(point, enumeration_oracle(subsets[subsets.sum(-1) <= 2]))
    torch.testing.assert_close(budget, project_budget(point, 2))


@pytest.mark.parametrize("projective, single_root", KINDS)
def test_forbidden_parts(projective, single_root):
    """They are 0, and the others are projected onto the hull of the trees that do without them."""
    torch.manual_seed(0)
    vertices = trees(3, projective, single_root)
    point = torch.randn(20, 4, 4, dtype=torch.float64)
    forbidden = torch.rand(20, 4, 4) < 0.3
    possible = ~(vertices.bool() & forbidden.unsqueeze(1)).flatten(2).any(-1)
    mask = torch.ones(20, 4, dtype=torch.bool)
    for oracle in (
        enumeration_oracle(vertices),
        TreeOracle(mask, projective, single_root),
    ):
        for minus_infinity in (-INF, -1e32):
            values = point.masked_fill(forbidden, minus_infinity).requires_grad_()
            projection = sparsemap_project(values, oracle)
            (gradient,) = torch.autograd.grad((projection * torch.randn_like(projection)).sum(), values)
            for row in range(20):
                assert (projection[row][forbidden[row]] == 0).all()
                assert (gradient[row][forbidden[row]] == 0).all()
                if possible[row].any():
                    hull = vertices[possible[row]]
                    restricted = point[row].masked_fill(forbidden[row], 0.0)
                    expected = enumeration.Oracle(hull, restricted).project(restricted)
                    torch.testing.assert_close(projection[row], expected, rtol=0, atol=1e-8)
                else:
                    assert (projection[row] == 0).all()


def test_padding_rows_and_empty_batches():
    mask = torch.tensor([[False, False, False], [True, False, False], [True, True, True]])
    oracle = TreeOracle(mask, True, True)
    projection = sparsemap_project(torch.randn(3, 3, 3), oracle)
    assert (projection[:2] == 0).all() and projection[2].sum() == pytest.approx(2)
    empty = sparsemap_project(torch.zeros(0, 3, 3), TreeOracle(mask[:0], True, True))
    assert empty.shape == (0, 3, 3)


@pytest.mark.parametrize("projective, single_root", KINDS)
def test_gradients(projective, single_root):
    torch.manual_seed(1)
    mask = torch.ones(3, 5, dtype=torch.bool)
    oracle = TreeOracle(mask, projective, single_root)
    point = (torch.randn(3, 5, 5, dtype=torch.float64) * 0.4).requires_grad_()
    assert (active_set(point, oracle).weights > 0).sum(-1).min() > 1
    torch.autograd.gradcheck(lambda v: sparsemap_project(v, oracle), point)
    torch.autograd.gradgradcheck(lambda v: sparsemap_project(v, oracle), point)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    torch.manual_seed(0)
    oracle = enumeration_oracle(trees(4, True, True))
    point = torch.randn(6, 5, 5).to(dtype).requires_grad_()
    projection = sparsemap_project(point, oracle)
    (gradient,) = torch.autograd.grad(projection.square().sum(), point)
    assert projection.dtype == gradient.dtype == dtype
    expected = sparsemap_project(point.double(), oracle)
    torch.testing.assert_close(projection, expected.to(dtype))


def test_every_form_of_vertices():
    torch.manual_seed(0)
    point = torch.randn(6, 5, dtype=torch.float64)
    vertices = {
        "0/1": lambda scores, rows: (scores > 0).double(),
        "boolean": lambda scores, rows: scores > 0,
        "indices": lambda scores, rows: torch.where(scores > 0, torch.arange(5), -1).sort(descending=True)[0],
    }
    for oracle in vertices.values():
        torch.testing.assert_close(sparsemap_project(point, oracle), project_box(point))


def test_the_oracle_is_asked_for_unfinished_instances_only():
    """And told which ones they are."""
    vertices = trees(4, False, False)
    point = torch.zeros(3, 5, 5, dtype=torch.float64)
    point[0] = 100 * vertices[7]
    point[2] = torch.randn(5, 5, dtype=torch.float64)
    asked = []

    def oracle(scores, rows):
        asked.append(rows.tolist())
        assert len(scores) == len(rows)
        return enumeration_oracle(vertices)(scores, rows)

    iterations = active_set(point, oracle).iterations.tolist()
    assert asked[0] == asked[1] == [0, 1, 2]
    assert iterations == [sum(row in rows for rows in asked[1:]) for row in range(3)]
    assert iterations[0] == 1 and all(0 not in rows for rows in asked[2:])


def test_a_reached_iteration_limit_is_reported_once_for_each_caller(monkeypatch):
    monkeypatch.setattr(projection_module, "_MAX_ITERATIONS", 2)
    point = torch.zeros(3, 5, 5, dtype=torch.float64)
    point[0, 1:, 0] = 100.0
    vertices = trees(4, False, False)
    oracle = enumeration_oracle(vertices)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            solution = active_set(point, oracle)
    assert len(caught) == 1 and caught[0].filename == __file__
    gap = solution.duality_gap.max().item()
    assert f"{gap:.3g}" in str(caught[0].message) and "2 iterations" in str(caught[0].message)
    assert solution.converged.tolist() == [True, False, False]
    assert solution.iterations.tolist() == [1, 2, 2]
    # The gap that is reported is that of the point that is returned.
    torch.testing.assert_close(solution.duality_gap, duality_gaps(point, solution.projection, vertices))
    with pytest.warns(RuntimeWarning, match="duality gap"):
        sparsemap_project(point, oracle)


@pytest.mark.parametrize("value", [float("nan"), INF])
def test_what_is_no_number_is_refused(value):
    point = torch.zeros(2, 3)
    point[1, 1] = value
    with pytest.raises(ValueError, match="NaN or \\+inf"):
        active_set(point, lambda scores, rows: scores > 0)
