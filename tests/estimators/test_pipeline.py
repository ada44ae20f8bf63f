import torch

from tests.estimators.estimator_test_case import DeterministicEstimatorTestCase, problem


class TestPipeline(DeterministicEstimatorTestCase):
    params = {"type": "pipeline"}

    def expected_gradient(self, given):
        return torch.zeros_like(given.scores)

    def test_nothing_flows_back(self, structure_name):
        given = problem(structure_name)
        scores = given.scores.clone().requires_grad_()
        output = self.estimator()(scores, given.mask, given.structure, given.downstream)
        output.instance_loss.sum().backward()
        assert scores.grad is None or (scores.grad == 0).all()
