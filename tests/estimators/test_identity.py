import pytest
import torch

from tests.estimators.estimator_test_case import (
    DeterministicEstimatorTestCase,
    EstimatorTestCase,
    Problem,
    assert_same,
    problem,
    run,
)


def competing(oracle, row: int) -> list[torch.Tensor]:
    """Masks of the sets of parts, along the first dimensions, that every structure has equally many of."""
    vertices = oracle.case.padded(oracle.case.vertices(oracle.tokens[row]), oracle.legal.size(1))
    rows = vertices.flatten(1)[:, None] if vertices.dim() == 2 else vertices.flatten(2)
    sets = []
    for index in range(rows.size(1)):
        counts = rows[:, index].sum(-1)
        if (counts == counts[0]).all() and counts[0] > 0:
            chosen = torch.zeros_like(vertices[0])
            (chosen.view(-1) if vertices.dim() == 2 else chosen[index].view(-1))[:] = 1
            sets.append(chosen * oracle.legal[row])
    return sets


def projected(given: Problem, scores: torch.Tensor, standardized: bool) -> torch.Tensor:
    """`P(s)`, set by set."""
    instances = []
    for row, instance in enumerate(scores):
        instance = instance * given.oracle.legal[row]
        for chosen in competing(given.oracle, row):
            instance = instance - chosen * (instance * chosen).sum() / chosen.sum()
        norm = (instance**2).sum().sqrt()
        instances.append(instance / norm if standardized and norm > 0 else instance)
    return torch.stack(instances)


class TestCentered(DeterministicEstimatorTestCase):
    params = {"type": "identity"}
    standardized = False

    def expected_gradient(self, given):
        """`P'(s)^T g(z^)`, by autograd through `P`."""
        scores = given.scores.clone().requires_grad_()
        point = projected(given, scores, self.standardized)
        gradient = given.downstream.gradient(given.oracle.argmax(given.scores))
        return torch.autograd.grad((point * gradient).sum(), scores)[0]

    def test_it_is_blind_to_what_changes_no_structure(self):
        """The gradient is orthogonal to constants over competing parts, and standardized to the scores themselves."""
        for given in self.problems():
            gradient = run(self.estimator(), given).gradient
            for row in range(len(gradient)):
                for chosen in competing(given.oracle, row):
                    assert (gradient[row] * chosen).sum().abs() < 1e-9
            if self.standardized:
                centered = projected(given, given.scores, standardized=False)
                assert (gradient * centered).flatten(1).sum(-1).abs().max() < 1e-9

    def test_equal_scores(self):
        """`P` is 0 there, and has no direction to divide by."""
        given = problem("projective_tree")
        given = given._replace(scores=torch.zeros_like(given.scores))
        assert run(self.estimator(), given).gradient.isfinite().all()


class TestStandardized(TestCentered):
    params = {"type": "identity", "projection": "standardized"}
    standardized = True


class TestNoisy(EstimatorTestCase):
    params = {"type": "identity", "noise_scale": 0.5}

    def test_gumbel_max(self):
        """For one choice, the argmax of scores with noise of scale `t` is a draw from the softmax of `s / t`."""
        torch.manual_seed(0)
        given = problem("categorical", tokens=(4,), padding=0)
        scores, mask = given.scores.expand(4000, -1), given.mask.expand(4000, -1)
        output = self.estimator()(scores, mask, given.structure, lambda z: {"logits": z})
        expected = (given.scores[0] / 0.5).softmax(-1)
        error = (expected * (1 - expected) / 4000).sqrt()
        assert ((output.value.mean(0) - expected).abs() <= 5 * error).all()

    def test_the_gradient_is_that_at_the_noisy_value(self):
        given = problem("projective_tree")
        result = run(self.estimator(), given)
        scores = given.scores.clone().requires_grad_()
        gradient = given.downstream.gradient(result.output.value.detach())
        (expected,) = torch.autograd.grad((projected(given, scores, False) * gradient).sum(), scores)
        assert_same(result.gradient, expected)


@pytest.mark.parametrize("structure_name", ["arc_graph", "labeled_arc_graph"])
def test_where_nothing_competes_it_is_straight_through(structure_name):
    given = problem(structure_name)
    found = run(TestCentered().estimator(), given)
    expected = given.downstream.gradient(given.oracle.argmax(given.scores)) * given.oracle.legal
    assert_same(found.gradient, expected)
