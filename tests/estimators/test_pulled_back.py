import itertools

import pytest
import torch
from allennlp.common import Params

from spigot_allennlp.estimators import Estimator
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import (
    DeterministicEstimatorTestCase,
    Problem,
    assert_same,
    problem,
    pull_back,
    run,
)


class PulledBackTestCase(DeterministicEstimatorTestCase):
    """
    # Parameters (class attributes)

    start, update, intermediate_loss : `str`
        The row of the table.
    """

    start: str
    update: str
    intermediate_loss: str

    def reference(self, given: Problem, **options: float) -> torch.Tensor:
        return pull_back(
            given.oracle,
            given.scores,
            given.downstream.gradient,
            self.start,
            self.update,
            self.intermediate_loss,
            **options,
        )

    def expected_gradient(self, given: Problem) -> torch.Tensor:
        return self.reference(given)

    def test_options(self, structure_name):
        given = problem(structure_name)
        for options in (
            {"step_size": 0.1},
            {"step_size": 30.0},
            {"num_steps": 3, "step_size": 0.4},
            {"max_gradient_norm": 0.5},
            {"max_gradient_norm": 1.5, "num_steps": 2, "step_size": 2.0},
            {"max_gradient_norm": 1e6},
        ):
            expected = self.reference(given, **options)
            assert_same(run(self.estimator(**options), given).gradient, expected, name=str(options))

    @pytest.mark.parametrize(
        "forward_map, num_steps", [("argmax", 1), ("marginals", 1), ("sparsemap", 1), ("argmax", 2), ("sparsemap", 2)]
    )
    def test_forward_map(self, structure_name, forward_map, num_steps):
        """It changes what the downstream model sees and costs, not what is pulled back."""
        given = problem(structure_name)
        result = run(self.estimator(forward_map=forward_map, num_steps=num_steps), given)
        maps = {
            "argmax": given.oracle.argmax,
            "marginals": given.oracle.marginals,
            "sparsemap": given.oracle.project,
        }
        expected = maps[forward_map](given.scores)
        torch.testing.assert_close(result.output.value.detach(), expected, rtol=0, atol=1e-7)
        assert_same(result.gradient, self.reference(given, num_steps=num_steps))
        # The steps off the forward point leave no gradient behind.
        given.downstream.zero_grad()
        given.downstream.instance_loss(expected).sum().backward()
        for name, p in given.downstream.named_parameters():
            assert_same(result.parameters[name], p.grad)
        if num_steps == 1:
            calls = 1 if forward_map == self.start else 2
            assert given.downstream.calls == given.downstream.backward_passes == calls
        else:
            assert given.downstream.calls <= 1 + num_steps

    def test_evaluation_of_a_relaxed_forward(self, structure_name):
        for relaxed_evaluation in (True, False):
            given = problem(structure_name)
            estimator = self.estimator(forward_map="marginals", relaxed_evaluation=relaxed_evaluation).eval()
            output = estimator(given.scores, given.mask, given.structure, given.downstream)
            expected = given.oracle.marginals if relaxed_evaluation else given.oracle.argmax
            torch.testing.assert_close(output.value, expected(given.scores), rtol=0, atol=1e-9)
            assert given.downstream.calls == 1

    def test_several_steps_belong_to_the_instance_too(self, structure_name):
        given = problem(structure_name)
        plain = run(self.estimator(num_steps=3), given)
        weights = torch.tensor([0.0, 1 / 3, 65_536.0, -2.0], dtype=torch.float64)
        weighted = run(self.estimator(num_steps=3), given, lambda losses: (weights * losses).sum())
        factor = weights.view(-1, *[1] * (given.scores.dim() - 1))
        for found, expected in zip(weighted.gradient, factor * plain.gradient, strict=True):
            assert_same(found, expected)
        for row, tokens in enumerate(given.oracle.tokens):
            alone = run(self.estimator(num_steps=3), given.alone(row))
            assert_same(alone.gradient[0], given.oracle.case.compact(plain.gradient[row], tokens))

    def test_several_steps_touch_no_gradient_of_the_downstream_model(self, structure_name):
        given = problem(structure_name)
        for p in given.downstream.parameters():
            p.grad = torch.full_like(p, 3.0)
        self.estimator(num_steps=3)(
            given.scores.clone().requires_grad_(), given.mask, given.structure, given.downstream
        )
        assert all((p.grad == 3).all() for p in given.downstream.parameters())

    def test_several_steps_without_gold_and_in_evaluation(self, structure_name):
        given = problem(structure_name)
        estimator = self.estimator(num_steps=3).eval()
        with torch.no_grad():
            estimator(given.scores, given.mask, given.structure, given.downstream)
        assert given.downstream.calls == 1
        unlabelled = problem(structure_name, gold=False)
        output = estimator.train()(
            unlabelled.scores.clone().requires_grad_(),
            unlabelled.mask,
            unlabelled.structure,
            unlabelled.downstream,
        )
        assert output.instance_loss is None
        assert unlabelled.downstream.calls == 1

    def test_it_equals_the_loss_term(self, structure_name):
        """
        The reference of one-pass surrogates: `g` by an extra backward pass, then the term `<s, own - m>` with
        the bracket detached, minus its own value, weighted like the instance's loss.
        """
        given = problem(structure_name)
        structure, downstream = given.structure, given.downstream
        weights = torch.tensor([0.3, 2.0, 0.0, 1.0], dtype=torch.float64)
        found = run(self.estimator(), given, lambda losses: (weights * losses).sum())

        scores = given.scores.clone().requires_grad_()
        detached = scores.detach()
        maps = {"argmax": structure.argmax, "marginals": structure.marginals, "sparsemap": structure.project}
        own = {"perceptron": "argmax", "cross_entropy": "marginals", "sparsemap": "sparsemap"}
        start = maps[self.start](detached, given.mask).requires_grad_()
        (g,) = torch.autograd.grad(downstream(start)["instance_loss"].sum(), start)
        g = g * structure.legal_parts(detached, given.mask)
        if self.update == "gradient":
            moved = start - g
        elif self.update == "projected_gradient":
            moved = structure.project(start - g, given.mask)
        else:
            moved = structure.marginals(detached - g, given.mask)
        bracket = (maps[own[self.intermediate_loss]](detached, given.mask) - moved).detach()
        term = (scores * bracket).flatten(1).sum(1)
        loss = downstream(maps[self.forward](detached, given.mask))["instance_loss"] + term - term.detach()
        (weights * loss).sum().backward()
        torch.testing.assert_close(found.output.instance_loss, loss)
        assert_same(found.gradient, scores.grad)


class TestSte(PulledBackTestCase):
    params = {"type": "ste"}
    start, update, intermediate_loss = "argmax", "gradient", "perceptron"

    def test_its_gradient_is_the_step(self, structure_name):
        given = problem(structure_name)
        g = given.downstream.gradient(given.oracle.argmax(given.scores)) * given.oracle.legal
        assert_same(run(self.estimator(step_size=0.3), given).gradient, 0.3 * g)


class TestSpigot(PulledBackTestCase):
    params = {"type": "spigot"}
    start, update, intermediate_loss = "argmax", "projected_gradient", "perceptron"

    def test_a_step_that_does_not_leave_the_vertex_gives_nothing(self, structure_name):
        """Where the downstream gradient already likes the structure best, there is nothing to learn."""
        given = problem(structure_name)
        best = given.oracle.argmax(given.scores)
        given.downstream.curvature, given.downstream.targets = 1.0, 3 * best - 1
        given.downstream.second.data.zero_()
        assert run(self.estimator(), given).gradient.abs().max() < 1e-7


class TestSpigotCrossEntropy(PulledBackTestCase):
    params = {"type": "spigot_ce"}
    start, update, intermediate_loss = "marginals", "projected_gradient", "cross_entropy"
    calls = 2
    backward_passes = 2


class TestSpigotExponentiatedGradient(PulledBackTestCase):
    params = {"type": "spigot_eg"}
    start, update, intermediate_loss = "marginals", "exponentiated_gradient", "cross_entropy"
    calls = 2
    backward_passes = 2


class TestSpigotCrossEntropyOfMarginals(TestSpigotCrossEntropy):
    """The published variant whose forward is the marginals, which needs no extra pass."""

    params = {"type": "spigot_ce", "forward_map": "marginals"}
    forward = "marginals"
    calls = 1
    backward_passes = 1


FAMILY = list(
    itertools.product(
        ["argmax", "marginals", "sparsemap"],
        ["gradient", "projected_gradient", "exponentiated_gradient"],
        ["perceptron", "cross_entropy", "sparsemap"],
    )
)


@pytest.mark.parametrize("start, update, intermediate_loss", FAMILY)
def test_the_whole_family(start, update, intermediate_loss):
    """Every start, update and intermediate loss; exponentiated gradient walks from the scores."""
    choices = {"start": start, "update": update, "intermediate_loss": intermediate_loss}
    # One of each with one step, and with two.
    for structure_name, num_steps in (
        ("categorical", 1),
        ("projective_tree", 2),
        ("arc_graph_one_head", 1 + FAMILY.index((start, update, intermediate_loss)) % 2),
    ):
        given = problem(structure_name, tokens=(3, 2))
        options = {"step_size": 0.5, "num_steps": num_steps}
        estimator = Estimator.from_params(Params({"type": "pulled_back", **options, **choices}))
        expected = pull_back(given.oracle, given.scores, given.downstream.gradient, **options, **choices)
        assert_same(run(estimator, given).gradient, expected, name=structure_name)


@pytest.mark.parametrize(
    "name, case", [("ste", TestSte), ("spigot", TestSpigot), ("spigot_ce", TestSpigotCrossEntropy)]
)
def test_named_estimators_are_compositions(name, case):
    """The named ones are `pulled_back` with their row of the table."""
    composed = {
        "type": "pulled_back",
        "start": case.start,
        "update": case.update,
        "intermediate_loss": case.intermediate_loss,
    }
    for structure_name in CASES:
        given = problem(structure_name, tokens=(3, 2))
        found = run(Estimator.from_params(Params({"type": name})), given).gradient
        assert torch.equal(found, run(Estimator.from_params(Params(dict(composed))), given).gradient), structure_name


class TestPulledBack(PulledBackTestCase):
    """The template for a member of the family that has no name of its own."""

    params = {
        "type": "pulled_back",
        "start": "sparsemap",
        "update": "projected_gradient",
        "intermediate_loss": "sparsemap",
        "forward_map": "sparsemap",
    }
    start, update, intermediate_loss = "sparsemap", "projected_gradient", "sparsemap"
    forward = "sparsemap"
