import pytest
import torch

from tests.enumeration import Oracle
from tests.estimators.estimator_test_case import (
    DeterministicEstimatorTestCase,
    Problem,
    assert_same,
    problem,
    run,
)


def risk(given: Problem, scores: torch.Tensor, k: int) -> torch.Tensor:
    """`E[L]` under the distribution of the `k` best structures, renormalised; per instance."""
    values = []
    for row, tokens in enumerate(given.oracle.tokens):
        oracle: Oracle = given.oracle.case.oracle(scores[row], tokens)
        best = oracle.scores.detach().argsort(descending=True)[:k]
        probabilities = oracle.scores[best].softmax(0)
        instance = given.on(slice(row, row + 1)).downstream
        losses = torch.cat([instance.instance_loss(oracle.vertices[i][None]) for i in best])
        values.append((probabilities * losses).sum())
    return torch.stack(values)


class TestMinimumRisk(DeterministicEstimatorTestCase):
    params = {"type": "minimum_risk", "k": 3}
    one_point = False

    def exhaustive(self, given: Problem) -> bool:
        return given.oracle.case.params["type"] == "categorical"

    def expected_gradient(self, given):
        return self.reference(given, 3)

    def reference(self, given: Problem, k: int) -> torch.Tensor:
        scores = given.scores.clone().requires_grad_()
        total = risk(given, scores, 10_000 if self.exhaustive(given) else k).sum()
        return torch.autograd.grad(total, scores)[0]

    def test_passes_through_the_downstream_model(self):
        """One a structure; how many options a categorical has does not depend on `k`."""
        for structure_name in ("projective_tree", "labeled_arc_graph"):
            given = problem(structure_name)
            run(self.estimator(), given)
            assert given.downstream.calls == given.downstream.backward_passes == 3

    @pytest.mark.parametrize("k", [1, 2, 5, 600])
    def test_value_and_gradient(self, structure_name, k):
        """Also where fewer than `k` structures exist: it is then the exact expectation."""
        tokens = (3, 2) if k == 600 and structure_name != "categorical" else None
        if structure_name == "labeled_arc_graph" and k == 600:
            tokens = (2, 2)
        given = problem(structure_name, tokens=tokens)
        result = run(self.estimator(k=k), given)
        everything = 10_000 if self.exhaustive(given) else k
        torch.testing.assert_close(result.output.instance_loss, risk(given, given.scores, everything))
        assert_same(result.gradient, self.reference(given, k))

    def test_downstream_parameters_learn_as_from_a_plain_forward(self, structure_name):
        """As from that of every structure, by its probability."""
        given = problem(structure_name)
        result = run(self.estimator(), given)
        given.downstream.zero_grad()
        risk(given, given.scores, 3).sum().backward()
        for name, p in given.downstream.named_parameters():
            assert_same(result.parameters[name], p.grad)

    def test_all_options_of_a_categorical_count(self):
        """Exact whatever `k`: the options are few by nature."""
        given = problem("categorical")
        assert_same(run(self.estimator(k=1), given).gradient, run(self.estimator(k=9), given).gradient)
        assert run(self.estimator(k=1), given).gradient.abs().max() > 0
