"""Estimators whose gradient is that of a relaxation: `ste_marginals`, `marginals`, `sparsemap`."""

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


def through_marginals(given: Problem, cotangent: torch.Tensor) -> torch.Tensor:
    """`J_p(s)^T cotangent`, by autograd through the enumeration."""
    scores = given.scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((given.oracle.marginals(scores) * cotangent).sum(), scores)
    return gradient


class TestSteMarginals(DeterministicEstimatorTestCase):
    params = {"type": "ste_marginals"}

    def expected_gradient(self, given):
        """`J_p(s)^T g(z^)`."""
        return through_marginals(given, given.downstream.gradient(given.oracle.argmax(given.scores)))


class RelaxedTestCase(EstimatorTestCase):
    """The training forward is a relaxation; evaluation takes the argmax unless told otherwise."""

    def test_relaxed_evaluation(self, structure_name):
        given = problem(structure_name)
        estimator = self.estimator(relaxed_evaluation=True).eval()
        with torch.no_grad():
            output = estimator(given.scores, given.mask, given.structure, given.downstream)
        assert given.downstream.calls == 1
        torch.testing.assert_close(output.value, self.relaxation(given), rtol=0, atol=1e-7)
        plain = given.downstream(output.value)
        assert torch.equal(output.instance_loss, plain["instance_loss"])

    def relaxation(self, given: Problem) -> torch.Tensor:
        return self.expected_forward(given)

    def test_relaxed_evaluation_leaves_training_alone(self, structure_name):
        given = problem(structure_name)
        expected = run(self.estimator(), given)
        for relaxed_evaluation in (True, False):
            found = run(self.estimator(relaxed_evaluation=relaxed_evaluation), given)
            assert torch.equal(found.output.value, expected.output.value)
            assert torch.equal(found.gradient, expected.gradient)


class TestMarginals(RelaxedTestCase, DeterministicEstimatorTestCase):
    params = {"type": "marginals"}
    forward = "marginals"

    def expected_gradient(self, given):
        """Exact: `J_p(s)^T g(p^)`."""
        return through_marginals(given, given.downstream.gradient(given.oracle.marginals(given.scores)))

    def test_it_is_the_derivative_of_its_loss(self, structure_name):
        """Against central differences of the loss itself, along one direction."""
        given = problem(structure_name)
        gradient = run(self.estimator(), given).gradient
        direction = torch.randn(given.scores.shape, generator=torch.Generator().manual_seed(5)).double()

        def loss(step: float) -> float:
            marginals = given.oracle.marginals(given.scores + step * direction)
            return given.downstream.instance_loss(marginals).sum().item()

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


class TestSparsemap(RelaxedTestCase, DeterministicEstimatorTestCase):
    params = {"type": "sparsemap"}
    forward = "sparsemap"

    def expected_gradient(self, given):
        """Exact: the projection's Jacobian times `g` at the projection."""
        cotangents = given.downstream.gradient(given.oracle.project(given.scores))
        return given.oracle.project_gradient(given.scores, cotangents)

    def test_small_scores_give_dense_gradients(self, structure_name):
        """Inside the polytope many structures are active; the gradient is still exact."""
        given = problem(structure_name)
        given = given._replace(scores=given.scores * 0.1)
        assert_same(run(self.estimator(), given).gradient, self.expected_gradient(given))
