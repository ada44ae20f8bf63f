"""What keeps scores from running away, and what tells that they do."""

import logging
import math

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.metrics import EstimatorDiagnostics
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import STRUCTURES, LinearDownstream, assert_same, problem, run, structure_of

CHOICES = [name for name in STRUCTURES if structure_of(name).competing_dimensions]


def estimator(**params) -> Estimator:
    return Estimator.from_params(Params(params))


@pytest.mark.parametrize("structure_name", STRUCTURES)
def test_every_structure_has_as_many_of_the_parts_that_compete(structure_name):
    number = structure_of(structure_name).competing_dimensions
    vertices = CASES[structure_name].vertices(3)
    totals = vertices.sum(tuple(range(-max(number, 1), 0)))
    assert (totals == totals[0]).all() == (number > 0)


@pytest.mark.parametrize("structure_name", CHOICES)
def test_a_centered_step_is_the_step_without_its_mean_over_choices(structure_name):
    given = problem(structure_name)
    plain = run(estimator(type="ste"), given).gradient
    centered = run(estimator(type="ste", center_gradient=True), given).gradient
    dimensions = tuple(range(-structure_of(structure_name).competing_dimensions, 0))
    legal = given.structure.legal_parts(given.scores, given.mask)
    counts = legal.sum(dimensions, keepdim=True).clamp(min=1)
    assert_same(centered.sum(dimensions), torch.zeros_like(centered.sum(dimensions)))
    assert_same(centered, torch.where(legal, plain - plain.sum(dimensions, keepdim=True) / counts, 0.0))
    assert plain.sum(dimensions).abs().max() > 0.1


@pytest.mark.parametrize("structure_name", ["projective_tree", "projective_tree_relaxed", "categorical"])
def test_a_projection_drops_the_mean_in_any_case(structure_name):
    given = problem(structure_name)
    for name in ("spigot", "spigot_ce", "spigot_eg"):
        plain = run(estimator(type=name), given).gradient
        centered = run(estimator(type=name, center_gradient=True), given).gradient
        torch.testing.assert_close(centered, plain, rtol=0, atol=1e-7)
        assert plain.abs().max() > 0.01


def test_centering_comes_before_clipping():
    given = problem("projective_tree")
    clipped = run(estimator(type="ste", center_gradient=True, max_gradient_norm=0.5), given).gradient
    norms = run(estimator(type="ste", center_gradient=True), given).gradient.flatten(1).norm(dim=-1)
    assert_same(clipped.flatten(1).norm(dim=-1), norms.clamp(max=0.5))


def test_graphs_have_no_choices_to_center():
    for name in ("arc_graph", "labeled_arc_graph"):
        with pytest.raises(ConfigurationError, match=f"center_gradient needs parts .*'{name}' has none"):
            estimator(type="ste", center_gradient=True).check(structure_of(name))
        estimator(type="ste").check(structure_of(name))


def test_the_size_of_scores():
    given = problem("projective_tree", tokens=(4, 2))
    given.scores[0, 2, 1] = -torch.inf
    diagnostics = run(estimator(type="pipeline"), given).output.diagnostics
    for row, tokens in enumerate((4, 2)):
        heads = [
            [given.scores[row, d, h].item() for h in range(tokens) if h != d and math.isfinite(given.scores[row, d, h])]
            for d in range(1, tokens)
        ]
        squares = [score**2 for scores in heads for score in scores]
        means = [(sum(scores) / len(scores)) ** 2 for scores in heads]
        assert diagnostics["score_rms"][row].item() == pytest.approx((sum(squares) / len(squares)) ** 0.5)
        assert diagnostics["mean_score_rms"][row].item() == pytest.approx((sum(means) / len(means)) ** 0.5)


def test_whether_an_instance_has_a_surrogate():
    given = problem("single_head", tokens=(3, 3))
    # What pulls toward the heads that are chosen anyway leaves the polytope at once, and is projected back.
    value = given.structure.argmax(given.scores, given.mask)
    weights = torch.stack([-value[0], value[1]])
    output = estimator(type="spigot")(
        given.scores.requires_grad_(),
        given.mask,
        given.structure,
        lambda z: {"instance_loss": (weights * z).flatten(1).sum(-1)},
    )
    output.instance_loss.sum().backward()
    assert output.diagnostics["surrogate_nonzero"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "warns"),
    [([0.1, 5.0, 9.0], False), ([0.1, 12.0], True), ([3.0, 29.0], False), ([3.0, 50.0, 31.0], True)],
)
def test_scores_that_run_away_are_reported(caplog, values, warns):
    metric = EstimatorDiagnostics(["mean_score_rms", "pull_back_distance"])
    for value in values:
        metric(
            {"mean_score_rms": torch.tensor([value, math.nan, value]), "pull_back_distance": torch.full((3,), value)}
        )
    with caplog.at_level(logging.WARNING):
        metric.get_metric()
        assert not caplog.records
        metric.get_metric(reset=True)
        assert [("_mean_score_rms grew from" in r.getMessage()) for r in caplog.records] == [True] * warns
        # The next epoch begins anew.
        caplog.clear()
        metric({"mean_score_rms": torch.tensor([values[-1]])})
        metric.get_metric(reset=True)
        assert not caplog.records


def test_the_straight_through_estimator_drifts_and_centering_holds_it():
    """A toy of what happens on treebanks: a bias that all heads of a word share, with nothing to oppose it."""
    drift = {}
    for center in (False, True):
        torch.manual_seed(0)
        bias = torch.zeros(1, requires_grad=True)
        scores = torch.randn(8, 5, 5)
        mask = torch.ones(8, 5, dtype=torch.bool)
        optimizer = torch.optim.SGD([bias], lr=0.1)
        downstream = LinearDownstream(torch.randn(8, 5, 5) + 1.0)
        for _ in range(200):
            optimizer.zero_grad()
            output = estimator(type="ste", center_gradient=center)(
                scores + bias, mask, structure_of("projective_tree"), downstream
            )
            output.instance_loss.mean().backward()
            optimizer.step()
        drift[center] = output.diagnostics["mean_score_rms"].mean().item()
    assert drift[False] > 15
    assert drift[True] < 1.5
