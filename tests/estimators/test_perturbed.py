import math

import pytest
import torch

from tests.enumeration import CASES
from tests.estimators.estimator_test_case import EstimatorTestCase, problem, run
from tests.estimators.test_perturbation import copies, gradient_of_linear

MANY = 20_000


def normal_cdf(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class TestPerturbed(EstimatorTestCase):
    params = {"type": "perturbed", "num_samples": 3}

    def test_forward_is_a_mean_of_structures(self, structure_name):
        given = problem(structure_name)
        value = run(self.estimator(), given).output.value.detach()
        torch.testing.assert_close(3 * value, (3 * value).round(), rtol=0, atol=1e-9)
        torch.testing.assert_close(given.oracle.project(value), value, rtol=0, atol=1e-6)

    def check(self, estimator, name, scores, mask, exact) -> None:
        """
        Forward and gradient of a linear loss against `exact`, the smooth map, by their means over many copies.
        """
        weights = torch.randn(scores.shape[1:], generator=torch.Generator().manual_seed(1)).double()
        leaf = scores[0].clone().requires_grad_()
        expected_value = exact(leaf)
        (expected,) = torch.autograd.grad((expected_value * weights).sum(), leaf)
        value, gradient = gradient_of_linear(estimator, name, scores, mask, weights.expand_as(scores))
        for found, reference in ((value, expected_value.detach()), (gradient, expected)):
            error = found.std(0) / len(found) ** 0.5
            assert ((found.mean(0) - reference).abs() <= 5 * error + 1e-9).all()
        # The test can tell something.
        assert expected.abs().max() > 5 * (gradient.std(0) / len(gradient) ** 0.5).max()

    @pytest.mark.parametrize("num_samples, temperature", [(1, 1.0), (4, 0.5)])
    def test_gumbel_noise_makes_a_softmax(self, num_samples, temperature):
        """Unbiased for a linear loss: the smooth map of Gumbel noise over one choice is the softmax of `s / sigma`."""
        scores, mask = copies("categorical", 3, MANY)
        estimator = self.estimator(noise="gumbel", num_samples=num_samples, temperature=temperature)
        self.check(estimator, "categorical", scores, mask, lambda s: (s / temperature).softmax(-1))

    @pytest.mark.parametrize("noise", ["gaussian", "multiplicative"])
    def test_two_trees(self, noise):
        """
        Of two words there are two trees with one root. Which one wins is decided by a Gaussian variable: the difference
        of their noisy scores. With multiplicative noise that is so for two options with one score of 0 (its sign is
        kept).
        """
        if noise == "gaussian":
            scores, mask = copies("projective_tree", 3, MANY)
            vertices = CASES["projective_tree"].vertices(3)
            assert len(vertices) == 2
            different = (vertices[0] - vertices[1]).flatten()

            def exact(s: torch.Tensor) -> torch.Tensor:
                first = normal_cdf(different @ s.flatten() / different.norm())
                return first * vertices[0] + (1 - first) * vertices[1]

            self.check(self.estimator(temperature=1.0, num_samples=2), "projective_tree", scores, mask, exact)
            return
        # s_1 exp(Z_1 - 1/2) > s_2 exp(Z_2 - 1/2) for s > 0, if and only if Z_1 - Z_2 > log(s_2 / s_1).
        scores = torch.tensor([1.0, 1.5], dtype=torch.float64).expand(MANY, 2)

        def probabilities(s: torch.Tensor) -> torch.Tensor:
            first = normal_cdf((s[0] / s[1]).log() / math.sqrt(2))
            return torch.stack([first, 1 - first])

        estimator = self.estimator(noise="multiplicative", num_samples=2)
        self.check(estimator, "categorical", scores, torch.ones(MANY, 2, dtype=torch.bool), probabilities)

    def test_multiplicative_noise_keeps_signs(self):
        """An arc is there if and only if its score is positive, whatever the factor; 0 is not perturbed."""
        given = problem("arc_graph")
        scores = given.scores.clone()
        scores[0, 1, 0] = 0.0
        given = given._replace(scores=scores)
        result = run(self.estimator(noise="multiplicative"), given)
        assert torch.equal(result.output.value.detach(), given.oracle.argmax(scores))
        assert result.gradient[0, 1, 0] == 0

    def test_the_bias_vanishes_with_the_samples(self):
        """For a quadratic loss `g` depends on the noise: the bias with 64 samples is far smaller than with one."""
        scores, mask = copies("categorical", 2, MANY)

        def downstream(z: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"instance_loss": (z[:, 0] - 0.2) ** 2 * 3}

        leaf = scores[0].clone().requires_grad_()
        loss = 3 * (leaf.softmax(-1)[0] - 0.2) ** 2
        (exact,) = torch.autograd.grad(loss, leaf)
        biases = []
        for number in (1, 64):
            torch.manual_seed(0)
            estimator = self.estimator(noise="gumbel", num_samples=number)
            given = scores.clone().requires_grad_()
            output = estimator(given, mask, problem("categorical").structure, downstream)
            output.instance_loss.sum().backward()
            biases.append((given.grad.mean(0) - exact).abs().max())
        assert biases[1] < 0.2 * biases[0]

    def test_noise_only_in_training(self):
        given = problem("projective_tree")
        evaluated = self.estimator().eval()(given.scores, given.mask, given.structure, given.downstream)
        assert torch.equal(evaluated.value, given.oracle.argmax(given.scores))
