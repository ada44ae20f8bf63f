"""Estimators that perturb the scores: `perturb_and_map`, `gumbel_softmax`, `imle`, `blackbox`."""

import pytest
import torch
from scipy import stats

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.functional.noise import gumbel
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import (
    DeterministicEstimatorTestCase,
    EstimatorTestCase,
    LinearDownstream,
    Problem,
    assert_same,
    problem,
    run,
    structure_of,
)
from tests.estimators.test_relaxed import RelaxedTestCase


def copies(structure_name: str, tokens: int, number: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The same instance `number` times: a batch is then a sample of the estimator's noise."""
    shape = CASES[structure_name].shape(tokens)
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scores.expand(number, *shape).clone(), torch.ones(number, tokens, dtype=torch.bool)


def gradient_of_linear(
    estimator: Estimator,
    structure_name: str,
    scores: torch.Tensor,
    mask: torch.Tensor,
    weights: torch.Tensor,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The structure and the gradient at the scores where `L(z) = <weights, z>`, with the seed's noise."""
    leaf = scores.clone().requires_grad_()
    torch.manual_seed(seed)
    output = estimator(leaf, mask, structure_of(structure_name), LinearDownstream(weights))
    output.instance_loss.sum().backward()
    return output.value.detach(), leaf.grad


def simulate(structure_name: str, scores: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The enumerated structures, and their scores under `s + Gumbel`: (structures, parts), (batch, structures).
    """
    generator = torch.Generator().manual_seed(99)
    uniform = torch.rand(scores.shape, generator=generator, dtype=torch.float64).clamp(min=1e-300)
    perturbed = scores - torch.log(-torch.log(uniform))
    vertices = CASES[structure_name].vertices(tokens).flatten(1)
    return vertices, perturbed.flatten(1) @ vertices.T


def assert_same_mean(first: torch.Tensor, second: torch.Tensor, deviations: float = 5.0) -> None:
    """Two samples (number, ...) whose means differ by no more than chance lets them."""
    error = (first.var(0) / len(first) + second.var(0) / len(second)).sqrt()
    assert ((first.mean(0) - second.mean(0)).abs() <= deviations * error + 1e-9).all()


class TestPerturbAndMap(EstimatorTestCase):
    params = {"type": "perturb_and_map"}

    def test_forward_is_a_structure(self, structure_name):
        given = problem(structure_name)
        structure = run(self.estimator(), given).output.value.detach()
        for row, tokens, scores in zip(structure, given.oracle.tokens, given.scores, strict=True):
            assert given.oracle.case.oracle(scores, tokens).is_vertex(row)

    def test_gumbel_max(self):
        """Where the parts are whole structures, the perturbed argmax is a Gibbs sample."""
        scores, mask = copies("categorical", 4, 4000)
        torch.manual_seed(0)
        output = self.estimator()(scores, mask, structure_of("categorical"), lambda z: {"logits": z})
        observed = output.value.sum(0)
        assert stats.chisquare(observed, 4000 * scores[0].softmax(0)).pvalue > 1e-4

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_gradient_goes_through_the_perturbed_marginals(self, temperature):
        """
        With the noise held by the seed, unit losses give the Jacobian row by row. It has to be that of
        `m = softmax((s + G) / tau)`, i.e. `(diag(m) - m m') / tau`, and the forward the argmax of m. From
        `J_ij = -m_i m_j / tau` the m follow, and from these the noise, whose differences are logistic.
        """
        scores, mask = copies("categorical", 3, 1500)
        estimator = self.estimator(temperature=temperature)
        columns = []
        for option in range(3):
            weights = torch.eye(3, dtype=torch.float64)[option].expand_as(scores)
            structure, gradient = gradient_of_linear(estimator, "categorical", scores, mask, weights, seed=8)
            columns.append(gradient)
        jacobian = torch.stack(columns, 1)
        torch.testing.assert_close(jacobian, jacobian.transpose(1, 2))
        products = -temperature * jacobian
        m = torch.stack(
            [
                (products[:, i, j] * products[:, i, k] / products[:, j, k]).sqrt()
                for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
            ],
            dim=1,
        )
        torch.testing.assert_close(m.sum(1), torch.ones(len(m), dtype=torch.float64))
        assert torch.equal(m.argmax(1), structure.argmax(1))
        for i, j in ((0, 1), (1, 2)):
            difference = temperature * (m[:, i] / m[:, j]).log() - (scores[:, i] - scores[:, j])
            assert stats.kstest(difference.numpy(), "logistic").pvalue > 1e-4

    @pytest.mark.parametrize("structure_name, tokens", [("projective_tree", 4), ("linear_chain", 2)])
    def test_distribution_of_forward_and_gradient(self, structure_name, tokens):
        """Against a simulation over the enumerated structures."""
        scores, mask = copies(structure_name, tokens, 3000)
        weights = torch.randn(scores.shape[1:], generator=torch.Generator().manual_seed(1)).double()
        structure, gradient = gradient_of_linear(
            self.estimator(temperature=1.0), structure_name, scores, mask, weights.expand_as(scores)
        )
        vertices, perturbed = simulate(structure_name, scores, tokens)
        assert_same_mean(structure.flatten(1), vertices[perturbed.argmax(1)])
        probabilities = perturbed.softmax(1)
        values = vertices @ weights.flatten()
        centred = values - (probabilities @ values)[:, None]
        assert_same_mean(gradient.flatten(1), (probabilities * centred) @ vertices)


class TestGumbelSoftmax(RelaxedTestCase):
    params = {"type": "gumbel_softmax", "temperature": 0.7}

    def relaxation(self, given: Problem) -> torch.Tensor:
        """Without noise: `marginals(s / tau)`."""
        return given.oracle.marginals(given.scores / 0.7)

    @pytest.mark.parametrize("temperature", [1.0, 0.4])
    def test_forward_is_a_softmax_of_gumbel_scores(self, temperature):
        scores, mask = copies("categorical", 3, 1500)
        estimator = self.estimator(temperature=temperature)
        weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)).double()
        m, gradient = gradient_of_linear(estimator, "categorical", scores, mask, weights)
        torch.testing.assert_close(m.sum(1), torch.ones(len(m), dtype=torch.float64))
        for i, j in ((0, 1), (1, 2)):
            difference = temperature * (m[:, i] / m[:, j]).log() - (scores[:, i] - scores[:, j])
            assert stats.kstest(difference.numpy(), "logistic").pvalue > 1e-4
        centred = weights - (m * weights).sum(1, keepdim=True)
        assert_same(gradient, m * centred / temperature)

    def test_gradient_is_exact_for_independent_arcs(self):
        """From the forward itself: the sigmoid's derivative, at the point where `g` was taken."""
        given = problem("arc_graph")
        result = run(self.estimator(), given)
        m = result.output.value.detach()
        assert_same(result.gradient, m * (1 - m) / 0.7 * given.downstream.gradient(m) * given.oracle.legal)

    @pytest.mark.parametrize("structure_name, tokens", [("projective_tree", 4), ("linear_chain", 2)])
    def test_distribution_of_forward_and_gradient(self, structure_name, tokens):
        scores, mask = copies(structure_name, tokens, 3000)
        weights = torch.randn(scores.shape[1:], generator=torch.Generator().manual_seed(1)).double()
        structure, gradient = gradient_of_linear(
            self.estimator(), structure_name, scores, mask, weights.expand_as(scores)
        )
        vertices, perturbed = simulate(structure_name, scores, tokens)
        probabilities = (perturbed / 0.7).softmax(1)
        assert_same_mean(structure.flatten(1), probabilities @ vertices)
        values = vertices @ weights.flatten()
        centred = values - (probabilities @ values)[:, None]
        assert_same_mean(gradient.flatten(1), (probabilities * centred) @ vertices / 0.7)


class TestGumbelSparseMap(RelaxedTestCase):
    params = {"type": "gumbel_sparsemap", "temperature": 0.7}

    def relaxation(self, given: Problem) -> torch.Tensor:
        """Without noise: `Proj(s / tau)`."""
        return given.oracle.project(given.scores / 0.7)

    def test_value_and_gradient(self, structure_name):
        """With the noise of the seed: the projection of the noisy scores, and its exact derivative."""
        given = problem(structure_name)
        result = run(self.estimator(), given, seed=4)
        torch.manual_seed(4)
        point = (given.scores + gumbel(given.scores)) / 0.7
        value = result.output.value.detach()
        torch.testing.assert_close(value, given.oracle.project(point), rtol=0, atol=1e-7)
        expected = given.oracle.project_gradient(point, given.downstream.gradient(value)) / 0.7
        assert_same(result.gradient, expected)


class TestImle(EstimatorTestCase):
    params = {"type": "imle"}

    @pytest.mark.parametrize("interpolation", [0.3, 10.0])
    def test_gradient_is_a_difference_of_structures(self, structure_name, interpolation):
        """`(z - z') / lambda` with z the forward and z' another structure, 0 where the two agree."""
        given = problem(structure_name)
        result = run(self.estimator(interpolation=interpolation), given)
        forward = result.output.value.detach()
        target = (forward - interpolation * result.gradient).round(decimals=6)
        for row in range(len(given.scores)):
            oracle = given.oracle.case.oracle(given.scores[row], given.oracle.tokens[row])
            assert oracle.is_vertex(forward[row])
            assert oracle.is_vertex(target[row])

    def test_a_strong_interpolation_follows_the_downstream_gradient(self, structure_name):
        """Where lambda g outweighs scores and noise, z' is the structure of least `<g, z'>`."""
        given = problem(structure_name)
        result = run(self.estimator(interpolation=1e9), given)
        forward = result.output.value.detach()
        g = given.downstream.gradient(forward)
        assert_same(1e9 * result.gradient, forward - given.oracle.argmax(-g))

    def test_no_downstream_gradient_gives_none(self):
        scores, mask = copies("projective_tree", 4, 20)
        _, gradient = gradient_of_linear(self.estimator(), "projective_tree", scores, mask, torch.zeros_like(scores))
        assert (gradient == 0).all()

    def test_the_same_noise_in_both_argmaxes(self):
        """
        Rising lambda w_j switches to option j once, when it overtakes the forward's margin: the noise is the
        forward's own.
        """
        scores, mask = copies("categorical", 3, 300)
        estimator = self.estimator(interpolation=1.0)
        weights = torch.zeros_like(scores)
        switched_before = torch.zeros(len(scores), dtype=torch.bool)
        for strength in (0.0, 0.1, 0.5, 2.0, 8.0, 1e6):
            weights[:, 1] = -strength
            structure, gradient = gradient_of_linear(estimator, "categorical", scores, mask, weights, seed=2)
            target = structure - gradient
            to_option = target[:, 1] == 1
            assert (target[~to_option] == structure[~to_option]).all()
            assert to_option[switched_before].all()
            switched_before = to_option
            if strength == 0:
                assert torch.equal(to_option, structure[:, 1] == 1)
        assert switched_before.all()

    def test_noise_only_in_training(self):
        scores, mask = copies("projective_tree", 4, 200)
        estimator = self.estimator()
        structure = structure_of("projective_tree")
        torch.manual_seed(0)
        trained = estimator(scores, mask, structure, lambda z: {"logits": z}).value
        assert len(trained.flatten(1).unique(dim=0)) > 1
        evaluated = estimator.eval()(scores, mask, structure, lambda z: {"logits": z}).value
        assert len(evaluated.flatten(1).unique(dim=0)) == 1


class TestBlackbox(DeterministicEstimatorTestCase):
    params = {"type": "blackbox", "interpolation": 2.0}

    def expected_gradient(self, given):
        return self.reference(given, 2.0)

    def reference(self, given: Problem, interpolation: float) -> torch.Tensor:
        """`(argmax(s + lambda g) - z^) / lambda`."""
        best = given.oracle.argmax(given.scores)
        g = given.downstream.gradient(best)
        return (given.oracle.argmax(given.scores + interpolation * g) - best) / interpolation

    def test_interpolation(self, structure_name):
        given = problem(structure_name)
        for interpolation in (0.1, 20.0, 1e6):
            found = run(self.estimator(interpolation=interpolation), given).gradient
            assert_same(found, self.reference(given, interpolation))

    def test_its_sign_is_that_of_the_downstream_gradient(self, structure_name):
        """
        `lambda <argmax(s + lambda g) - z^, g> >= <z^ - argmax(s + lambda g), s> >= 0`: a step against it takes
        score from where the loss is higher.
        """
        given = problem(structure_name)
        gradient = run(self.estimator(interpolation=20.0), given).gradient
        g = given.downstream.gradient(given.oracle.argmax(given.scores))
        products = (gradient * g).flatten(1).sum(1)
        assert (products >= 0).all() and products.max() > 0


@pytest.mark.parametrize("name", ["perturb_and_map", "gumbel_softmax", "gumbel_sparsemap", "perturbed", "imle"])
def test_noise_is_drawn_anew(name):
    """Each call and each instance has its own."""
    estimator = Estimator.by_name(name)()
    scores, mask = copies("single_head", 5, 40)
    structure = structure_of("single_head")
    first = estimator(scores, mask, structure, lambda z: {"logits": z}).value
    second = estimator(scores, mask, structure, lambda z: {"logits": z}).value
    assert not torch.equal(first, second)
    assert len(first.flatten(1).unique(dim=0)) > 3
    # ... and so does every word: equal rows of scores do not fall the same way.
    flat = estimator(torch.zeros_like(scores), mask, structure, lambda z: {"logits": z}).value
    to_root = flat[:, 1:, 0]
    assert (to_root.max(1).values - to_root.min(1).values).max() > 0
