import torch

from tests.estimators.estimator_test_case import Downstream, EstimatorTestCase, assert_same, run
from tests.estimators.test_score_function import Sample


class TestReinMax(EstimatorTestCase):
    params = {"type": "reinmax"}

    def test_formula(self):
        """`2 J_{pi_1}^T g - 1/2 J_p^T g` row by row, at the value that was drawn."""
        for given in self.problems():
            result = run(self.estimator(), given)
            z = result.output.value.detach()
            g = given.downstream.gradient(z)
            p = given.oracle.marginals(given.scores)
            middle = (p + z) / 2

            def pulled(pi: torch.Tensor, g: torch.Tensor = g) -> torch.Tensor:
                return pi * (g - (pi * g).sum(-1, keepdim=True))

            assert_same(result.gradient, (2 * pulled(middle) - pulled(p) / 2) * given.oracle.legal)

    def test_unbiased_for_quadratic_losses(self):
        """The mean of 4,000 gradients is the exact gradient, for one choice and for several."""
        for name, tokens in (("categorical", 4), ("single_head", 3)):
            sample = Sample(name, tokens, 4000)
            sample.downstream.second.data.zero_()
            gradients = sample.gradients(self.estimator())
            error = gradients.std(0) / len(gradients) ** 0.5
            exact = sample.exact_gradient()
            assert ((gradients.mean(0) - exact).abs() <= 5 * error + 1e-9).all()
            assert exact.abs().max() > 3 * error.max()

    def test_its_bias_is_the_error_of_the_trapezoid_rule(self):
        """
        Exactly, by enumeration: `E[ds] = 1/4 sum_ij p_i p_j <g_i + g_j, e_i - e_j> (e_i - e_j)`, which for another
        loss than a quadratic one is not the exact gradient.
        """
        sample = Sample("categorical", 4, 4)
        # Each value once: the estimator's gradient there, weighted by its probability.
        values = torch.eye(4, dtype=torch.float64)
        sample.structure.sample = lambda scores, mask: values[None]
        p = sample.scores[0].softmax(-1)
        found = (p.unsqueeze(-1) * sample.gradients(self.estimator())).sum(0)
        every = Downstream(values)
        every.first, every.second, every.curvature = (
            sample.downstream.first, sample.downstream.second, sample.downstream.curvature
        )  # fmt: skip
        every.inputs, every.targets = sample.downstream.inputs, sample.downstream.targets
        g = every.gradient(values)
        expected = torch.zeros(4, dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                difference = values[i] - values[j]
                expected += p[i] * p[j] * 0.25 * ((g[i] + g[j]) @ difference) * difference
        assert_same(found, expected)
        assert (found - sample.exact_gradient()).abs().max() > 1e-3
