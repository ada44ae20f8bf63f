from typing import Optional

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.functional.noise import antithetic_pairs
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import (
    Downstream,
    EstimatorTestCase,
    assert_same,
    problem,
    run,
    structure_of,
)

BASELINES = [
    {"baseline": "none"},
    {"baseline": "none", "num_samples": 3},
    {"baseline": "moving_average"},
    {"baseline": "self_critic"},
    {"baseline": "self_critic", "num_samples": 2},
    {"baseline": "leave_one_out", "num_samples": 3},
    {"baseline": "disarm", "num_samples": 4},
]
# Each baseline with a structure, and each structure with some; DisARM takes independent choices.
UNBIASED = [
    ({"baseline": "none"}, "projective_tree", 4),
    ({"baseline": "none", "num_samples": 3}, "arc_graph", 3),
    ({"baseline": "moving_average"}, "linear_chain", 2),
    ({"baseline": "self_critic"}, "categorical", 4),
    ({"baseline": "self_critic", "num_samples": 2}, "projective_tree", 4),
    ({"baseline": "leave_one_out", "num_samples": 3}, "categorical", 4),
    ({"baseline": "leave_one_out", "num_samples": 2}, "arc_graph", 3),
    ({"baseline": "disarm", "num_samples": 2}, "categorical", 2),
    ({"baseline": "disarm", "num_samples": 4}, "categorical", 5),
    ({"baseline": "disarm", "num_samples": 2}, "single_head", 4),
    ({"prior_weight": 0.5, "baseline": "none"}, "projective_tree", 4),
    (
        {"prior_weight": 2.0, "prior_scores": [0.5, -1.0, 2.0, 0.0], "baseline": "disarm", "num_samples": 2},
        "categorical",
        4,
    ),
]


class Sample:
    """
    One instance many times over, so that a batch is a sample of the estimator's gradients.

    The downstream model is the same for every copy, so the exact gradient can be enumerated.
    """

    def __init__(self, structure_name: str, tokens: int, number: int, **downstream: float) -> None:
        case = CASES[structure_name]
        generator = torch.Generator().manual_seed(2)
        shape = case.shape(tokens)
        self.scores = torch.randn(shape, generator=generator, dtype=torch.float64).expand(number, *shape).clone()
        self.mask = torch.ones(number, tokens, dtype=torch.bool)
        self.structure = structure_of(structure_name)
        self.downstream = Downstream(self.scores, **downstream)
        self.downstream.inputs = self.downstream.inputs[:1].expand(number, -1)
        self.downstream.targets = self.downstream.targets[:1].expand(number, *shape)
        self.vertices = case.vertices(tokens)

    def losses_of_all(self) -> torch.Tensor:
        """(number of structures,)"""
        every = Downstream(self.vertices)
        every.first, every.second = self.downstream.first, self.downstream.second
        every.curvature, every.offset = self.downstream.curvature, self.downstream.offset
        every.inputs = self.downstream.inputs[:1]
        every.targets = self.downstream.targets[:1]
        return every.instance_loss(self.vertices).detach()

    def exact_gradient(self, weight: float = 0.0, prior_scores: Optional[list[float]] = None) -> torch.Tensor:
        """Of `E_p[L] + weight * KL(p || prior)`, by default a uniform one, for which that is `E_p[L] - weight * H`."""
        scores = self.scores[0].clone().requires_grad_()
        prior = torch.zeros_like(scores) if prior_scores is None else torch.tensor(prior_scores).to(scores)
        vertices = self.vertices.flatten(1)
        log_p, log_prior = ((vertices @ s.flatten()).log_softmax(0) for s in (scores, prior))
        expected_loss = (log_p.exp() * (self.losses_of_all() + weight * (log_p - log_prior))).sum()
        return torch.autograd.grad(expected_loss, scores)[0]

    def gradients(self, estimator: torch.nn.Module, seed: int = 0) -> torch.Tensor:
        """One gradient per copy."""
        leaf = self.scores.clone().requires_grad_()
        torch.manual_seed(seed)
        output = estimator(leaf, self.mask, self.structure, self.downstream)
        output.instance_loss.sum().backward()
        return leaf.grad


class TestScoreFunction(EstimatorTestCase):
    params = {"type": "score_function", "num_samples": 1, "baseline": "none"}

    @pytest.mark.parametrize("options, structure_name, tokens", UNBIASED, ids=str)
    def test_it_is_unbiased(self, structure_name, tokens, options):
        """The mean of 4,000 gradients is the exact gradient up to its standard error, with every baseline."""
        sample = Sample(structure_name, tokens, 4000, offset=2.0)
        gradients = sample.gradients(self.estimator(**options))
        error = gradients.std(0) / len(gradients) ** 0.5
        exact = sample.exact_gradient(options.get("prior_weight", 0.0), options.get("prior_scores"))
        assert ((gradients.mean(0) - exact).abs() <= 5 * error + 1e-9).all()
        # The test can tell something: the gradient is larger than the noise that is left.
        assert exact.abs().max() > 3 * error.max()

    def test_entropy_weight(self):
        """`L - entropy_weight * H`: a positive weight rewards entropy."""
        sample = Sample("projective_tree", 4, 4000)
        for weight in (0.0, 5.0):
            gradients = sample.gradients(self.estimator(entropy_weight=weight))
            error = gradients.std(0) / len(gradients) ** 0.5
            difference = (gradients.mean(0) - sample.exact_gradient(weight)).abs()
            assert (difference <= 5 * error + 1e-7).all()

    def test_one_sample_is_the_textbook_formula(self):
        """`L(z) (z - p^)`, instance by instance."""
        for name in ("categorical", "projective_tree", "arc_graph"):
            given = problem(name)
            result = run(self.estimator(), given)
            z = result.output.value.detach()
            losses = result.output.instance_loss.detach().view(-1, *[1] * (z.dim() - 1))
            assert_same(result.gradient, losses * (z - given.oracle.marginals(given.scores)))

    def test_self_critic_is_the_textbook_formula(self):
        given = problem("projective_tree")
        result = run(self.estimator(baseline="self_critic"), given)
        z = result.output.value.detach()
        best = given.oracle.argmax(given.scores)
        advantage = given.downstream.instance_loss(z) - given.downstream.instance_loss(best)
        expected = advantage.detach().view(-1, 1, 1) * (z - given.oracle.marginals(given.scores))
        assert_same(result.gradient, expected)

    @pytest.mark.parametrize(
        "options", [{"baseline": "self_critic"}, {"baseline": "leave_one_out", "num_samples": 2}], ids=str
    )
    def test_a_constant_loss_teaches_nothing(self, options):
        given = problem("projective_tree", curvature=0.0, offset=3.0)
        given.downstream.second.data.zero_()
        assert run(self.estimator(**options), given).gradient.abs().max() < 1e-12

    def test_the_moving_average_learns_the_level(self):
        """In the state dict, moved by training only, it takes the loss's level out of the variance."""
        sample = Sample("categorical", 3, 300, offset=100.0)
        estimator = self.estimator(baseline="moving_average")
        assert estimator.state_dict()
        plain = sample.gradients(self.estimator()).var(0).sum()
        for seed in range(300):
            sample.gradients(estimator, seed)
        learned = {name: value.clone() for name, value in estimator.state_dict().items()}
        estimator.eval()(sample.scores, sample.mask, sample.structure, sample.downstream)
        for name, value in estimator.state_dict().items():
            assert torch.equal(value, learned[name])

        restored = self.estimator(baseline="moving_average")
        restored.load_state_dict(learned)
        assert sample.gradients(restored, 5).var(0).sum() < 0.2 * plain

    @pytest.mark.parametrize("options", BASELINES, ids=str)
    def test_weights_and_scales_of_instances(self, options):
        """With every baseline, `c` multiplies each instance's gradient."""
        given = problem("single_head")
        weights = torch.tensor([0.0, 1 / 3, 65_536.0, -2.0], dtype=torch.float64)
        plain = run(self.estimator(**options), given, seed=3)
        weighted = run(self.estimator(**options), given, lambda losses: (weights * losses).sum(), seed=3)
        for found, expected in zip(weighted.gradient, weights.view(-1, 1, 1) * plain.gradient, strict=True):
            assert_same(found, expected)

    @pytest.mark.parametrize("options", BASELINES, ids=str)
    def test_number_of_passes(self, options):
        given = problem("single_head")
        run(self.estimator(**options), given)
        samples = options.get("num_samples", 1)
        assert given.downstream.calls == samples + (options["baseline"] == "self_critic")
        assert given.downstream.backward_passes == samples

    def test_several_samples_average_the_downstream_loss(self):
        """Value and parameters' gradients are the means over the sampled structures."""
        given = problem("categorical")
        result = run(self.estimator(num_samples=5), given)
        points = given.downstream.points
        assert len(points) == 5
        losses = torch.stack([given.downstream.instance_loss(z) for z in points]).mean(0)
        torch.testing.assert_close(result.output.instance_loss, losses)
        given.downstream.zero_grad()
        losses.sum().backward()
        for name, p in given.downstream.named_parameters():
            assert_same(result.parameters[name], p.grad)

    def test_one_sample_has_no_others_to_leave_in(self):
        with pytest.raises(ConfigurationError, match="leave_one_out"):
            self.estimator(baseline="leave_one_out", num_samples=1)

    def test_antithetic_pairs_vary_less(self):
        """Than two independent samples, for two options and for more."""
        for options in (2, 4):
            sample = Sample("categorical", options, 4000, offset=2.0)
            variances = [
                sample.gradients(self.estimator(baseline=baseline, num_samples=2)).var(0).sum()
                for baseline in ("disarm", "leave_one_out")
            ]
            assert variances[0] < 0.8 * variances[1]

    @pytest.mark.parametrize("number", [1, 3])
    def test_pairs_are_even(self, number):
        with pytest.raises(ConfigurationError, match=f"num_samples is {number}.*even"):
            self.estimator(baseline="disarm", num_samples=number)

    def test_pairs_of_trees_are_refused(self):
        with pytest.raises(ConfigurationError, match="score_function.*projective_tree.*categorical"):
            self.estimator(baseline="disarm", num_samples=2).check(structure_of("projective_tree"))

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"prior_weight": -1.0}, "prior_weight is -1.0; valid: a number >= 0"),
            ({"prior_scores": [1.0, 2.0]}, "prior_weight is 0"),
            ({"prior_weight": 1.0, "prior_scores": [[1.0], [2.0, 3.0]]}, "prior_scores is .*nested lists"),
            ({"prior_weight": 1.0, "prior_scores": [float("nan")]}, "prior_scores is .*finite"),
        ],
        ids=str,
    )
    def test_priors_that_are_refused(self, options, message):
        with pytest.raises(ConfigurationError, match=message):
            self.estimator(**options)

    def test_a_prior_of_another_size(self):
        with pytest.raises(ConfigurationError, match=r"shape \(3,\).*\(5,\)"):
            run(self.estimator(prior_weight=1.0, prior_scores=[1.0, 2.0, 3.0]), problem("categorical"))


class TestPairs:
    @pytest.mark.parametrize(
        "probabilities", [[0.5, 0.5], [0.9, 0.1], [0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.0, 0.4, 0.6]]
    )
    def test_joint_distribution(self, probabilities):
        """Each is distributed as `p`; `p(a) p(b) / w` is how often the pair is drawn."""
        torch.manual_seed(0)
        p = torch.tensor(probabilities, dtype=torch.float64)
        number = 40_000
        first, second, weights = antithetic_pairs(p[None], number)
        for drawn in (first, second):
            error = (p * (1 - p) / number).sqrt()
            assert ((drawn[:, 0].mean(0) - p).abs() <= 5 * error).all()
        a, b = first[:, 0].argmax(-1), second[:, 0].argmax(-1)
        assert (weights[:, 0] <= 1).all() and (weights[:, 0][a == b] == 0).all()
        for i in range(len(p)):
            for j in range(len(p)):
                chosen = (a == i) & (b == j)
                if i == j or not chosen.any():
                    continue
                expected = (p[i] * p[j] / weights[:, 0][chosen][0]).item()
                assert chosen.double().mean().item() == pytest.approx(expected, abs=5 * (expected / number) ** 0.5)

    def test_two_options_are_disarm(self):
        """The pair differs with probability `2 min p`, and the weight is `max p`."""
        p = torch.tensor([[0.8, 0.2], [0.5, 0.5]], dtype=torch.float64)
        first, second, weights = antithetic_pairs(p, 20_000)
        differ = (first != second).any(-1)
        torch.testing.assert_close(differ.double().mean(0), torch.tensor([0.4, 1.0]).double(), rtol=0, atol=0.02)
        for row, largest in enumerate((0.8, 0.5)):
            torch.testing.assert_close(
                weights[:, row][differ[:, row]],
                torch.full((int(differ[:, row].sum()),), largest).double(),
                rtol=1e-5,
                atol=0,
            )
