import pytest
import torch
from allennlp.common.checks import ConfigurationError

from tests.enumeration import CASES
from tests.estimators.estimator_test_case import (
    Downstream,
    EstimatorTestCase,
    assert_same,
    over_few_structures,
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

    def exact_gradient(self, entropy_weight: float = 0.0) -> torch.Tensor:
        """Of `E_p[L] - entropy_weight * H`."""
        scores = self.scores[0].clone().requires_grad_()
        log_p = (self.vertices.flatten(1) @ scores.flatten()).log_softmax(0)
        expected_loss = (log_p.exp() * (self.losses_of_all() + entropy_weight * log_p)).sum()
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

    @pytest.mark.parametrize("options", BASELINES, ids=str)
    @pytest.mark.parametrize(
        "structure_name, tokens",
        [("categorical", 4), ("projective_tree", 4), ("linear_chain", 2), ("arc_graph", 3)],
    )
    def test_it_is_unbiased(self, structure_name, tokens, options):
        """The mean of 4,000 gradients is the exact gradient up to its standard error, with every baseline."""
        sample = Sample(structure_name, tokens, 4000, offset=2.0)
        gradients = sample.gradients(self.estimator(**options))
        error = gradients.std(0) / len(gradients) ** 0.5
        difference = (gradients.mean(0) - sample.exact_gradient()).abs()
        assert (difference <= 5 * error + 1e-9).all()
        # The test can tell something: the gradient is larger than the noise that is left.
        assert sample.exact_gradient().abs().max() > 3 * error.max()

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
        given = problem("projective_tree")
        weights = torch.tensor([0.0, 1 / 3, 65_536.0, -2.0], dtype=torch.float64)
        plain = run(self.estimator(**options), given, seed=3)
        weighted = run(self.estimator(**options), given, lambda losses: (weights * losses).sum(), seed=3)
        for found, expected in zip(weighted.gradient, weights.view(-1, 1, 1) * plain.gradient, strict=True):
            assert_same(found, expected)

    @over_few_structures
    @pytest.mark.parametrize("options", BASELINES, ids=str)
    def test_number_of_passes(self, structure_name, options):
        given = problem(structure_name)
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
