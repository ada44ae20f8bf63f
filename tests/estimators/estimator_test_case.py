"""
The template suite of `Estimator`: a new estimator gets all of it by subclassing `EstimatorTestCase`. Formulas are
checked against enumeration over every structure, and the downstream model's gradient is known. The other tests run on
one structure each, a different one for each pair of estimator and test.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.estimators import Estimator, EstimatorOutput
from spigot_allennlp.structures import OPERATIONS, LatentStructure
from tests.enumeration import CASES, BatchOracle, Case

# One of every kind; the remaining variants differ only inside the structure.
STRUCTURES = (
    "categorical",
    "single_head",
    "projective_tree",
    "projective_tree_relaxed",
    "nonprojective_tree_multi_root",
    "arc_graph",
    "arc_graph_one_head",
    "linear_chain",
    "labeled_arc_graph",
)

# For half precision, whose rounding would make another argmax of the others' closer scores.
FEW_STRUCTURES = ("projective_tree", "labeled_arc_graph")


def structure_of(name: str) -> LatentStructure:
    return LatentStructure.from_params(Params(dict(CASES[name].params)))


class Downstream(torch.nn.Module):
    """
    A downstream model with a closed-form gradient: a two-layer tanh network plus a quadratic, for instance b

    `L_b(z) = offset + sum_h u_h tanh(<W_h, z> + x_bh) + curvature (||z||^2 / 2 - <t_b, z>)`.

    It is its own closure. Parts that do not exist are 0 in z and so leave the value alone, but *not* the
    gradient: `t` and `W` are non-zero everywhere.

    # Parameters

    parts : `torch.Tensor`
        Shape (batch, *parts), for shape, type and `t`.
    gold : `bool`
        Whether the outputs have an `instance_loss`.
    """

    def __init__(
        self,
        parts: torch.Tensor,
        gold: bool = True,
        curvature: float = 0.7,
        offset: float = 0.0,
        hidden: int = 3,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(17)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(parts.dtype)

        self.first = torch.nn.Parameter(normal(hidden, *parts.shape[1:]))
        self.second = torch.nn.Parameter(normal(hidden))
        self.inputs = normal(len(parts), hidden)
        self.targets = normal(*parts.shape)
        self.curvature = curvature
        self.offset = offset
        self.gold = gold
        self.points: list[torch.Tensor] = []
        self.backward_passes = 0

    @property
    def calls(self) -> int:
        return len(self.points)

    def select(self, rows: slice, case: Optional[Case] = None, tokens: Optional[int] = None) -> "Downstream":
        """The same parameters for some of the instances; a copy, cut to `tokens`, where these are given."""
        part = Downstream(self.targets[rows], self.gold, self.curvature, self.offset, len(self.second))
        part.first, part.second = self.first, self.second
        part.inputs = self.inputs[rows]
        part.targets = self.targets[rows]
        if case is not None:
            part.first = torch.nn.Parameter(case.compact(self.first.data, tokens))
            part.targets = case.compact(part.targets, tokens)
        return part

    def _hidden(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z.flatten(1) @ self.first.flatten(1).T + self.inputs)

    def instance_loss(self, z: torch.Tensor) -> torch.Tensor:
        quadratic = (z * z / 2 - self.targets * z).flatten(1).sum(1)
        return self.offset + self._hidden(z) @ self.second + self.curvature * quadratic

    def forward(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        self.points.append(z.detach().clone())
        outputs = {"logits": self._hidden(z)}
        if self.gold:
            loss = self.instance_loss(z)
            if loss.requires_grad:
                loss.register_hook(self._count_backward)
            outputs["instance_loss"] = loss
        return outputs

    def _count_backward(self, _: torch.Tensor) -> None:
        self.backward_passes += 1

    def gradient(self, z: torch.Tensor) -> torch.Tensor:
        """`g(z)`, shape (batch, *parts), by hand."""
        with torch.no_grad():
            slope = (1 - self._hidden(z) ** 2) * self.second
            through_network = (slope @ self.first.flatten(1)).view_as(z)
            return through_network + self.curvature * (z - self.targets)


class LinearDownstream:
    """`L_b(z) = <w_b, z>`: its gradient is `w` wherever it is taken."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self.calls = 0

    def __call__(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"logits": z, "instance_loss": (z * self.weights).flatten(1).sum(1)}


class Problem(NamedTuple):
    structure: LatentStructure
    scores: torch.Tensor
    mask: torch.Tensor
    downstream: Downstream
    oracle: BatchOracle

    def on(self, rows: slice) -> "Problem":
        """Some of the instances, in the same padding."""
        oracle = BatchOracle(self.oracle.case, self.oracle.tokens[rows], self.mask.size(1))
        return Problem(self.structure, self.scores[rows], self.mask[rows], self.downstream.select(rows), oracle)

    def alone(self, row: int) -> "Problem":
        """One instance without its padding."""
        case, tokens = self.oracle.case, self.oracle.tokens[row]
        rows = slice(row, row + 1)
        return Problem(
            self.structure,
            case.compact(self.scores[rows], tokens),
            torch.ones(1, tokens, dtype=torch.bool),
            self.downstream.select(rows, case, tokens),
            BatchOracle(case, [tokens], tokens),
        )


def problem(
    structure_name: str,
    tokens: Optional[tuple[int, ...]] = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    padding: int = 1,
    **downstream: Any,
) -> Problem:
    case = CASES[structure_name]
    largest = min(4, case.max_tokens - (structure_name == "linear_chain"))
    numbers = list(tokens or (largest, largest - 1, 2, largest))
    width = max(numbers) + padding
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(len(numbers), *case.shape(width), generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.arange(width) < torch.tensor(numbers)[:, None]
    return Problem(
        structure_of(structure_name),
        scores,
        mask,
        Downstream(scores, **downstream),
        BatchOracle(case, numbers, width),
    )


class Result(NamedTuple):
    output: EstimatorOutput
    # At the scores, zeros where none arrived.
    gradient: torch.Tensor
    # At the downstream model's parameters.
    parameters: dict[str, torch.Tensor]


def run(
    estimator: Estimator,
    given: Problem,
    combine: Callable[[torch.Tensor], torch.Tensor] = torch.sum,
    seed: int = 0,
) -> Result:
    """A forward and a backward pass; `combine` plays the trainer: from the instances' losses to the loss."""
    scores = given.scores.clone().requires_grad_()
    given.downstream.zero_grad()
    torch.manual_seed(seed)
    output = estimator(scores, given.mask, given.structure, given.downstream)
    combine(output.instance_loss).backward()
    gradient = torch.zeros_like(scores) if scores.grad is None else scores.grad
    parameters = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in given.downstream.named_parameters()
    }
    return Result(output, gradient, parameters)


def pull_back(
    oracle: BatchOracle,
    scores: torch.Tensor,
    gradient: Callable[[torch.Tensor], torch.Tensor],
    start: str,
    update: str,
    intermediate_loss: str,
    step_size: float = 1.0,
    num_steps: int = 1,
    max_gradient_norm: Optional[float] = None,
) -> torch.Tensor:
    """The gradient at the scores of a pulled-back estimator, as a literal loop over enumerated structures."""
    maps = {"argmax": oracle.argmax, "marginals": oracle.marginals, "sparsemap": oracle.project}
    point, theta = maps[start](scores), scores
    for _ in range(num_steps):
        g = gradient(point) * oracle.legal
        if max_gradient_norm is not None:
            norm = g.flatten(1).norm(dim=1)
            scale = torch.clamp(max_gradient_norm / norm, max=1.0)
            g = g * scale.view(-1, *[1] * (g.dim() - 1))
        if update == "gradient":
            point = point - step_size * g
        elif update == "projected_gradient":
            point = oracle.project(point - step_size * g)
        elif update == "exponentiated_gradient":
            theta = theta - step_size * g
            point = oracle.marginals(theta)
    own = {"perceptron": "argmax", "cross_entropy": "marginals", "sparsemap": "sparsemap"}[intermediate_loss]
    return (maps[own](scores) - point) * oracle.legal


def assert_same(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-6, name: str = "") -> None:
    """To `relative` of the largest value, in norm."""
    tolerance = relative * max(1e-3, expected.abs().max().item())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, msg=lambda text: f"{name} {text}")


class EstimatorTestCase:
    """
    # Parameters (class attributes)

    params : `dict`
        What `Estimator.from_params` gets.
    forward : `str`
        The map from scores to the structure of the training forward: argmax, marginals or sparsemap.
    calls : `int`
        Passes forward through the downstream model in training.
    backward_passes : `int`
        And backward.
    one_point : `bool`
        Whether the loss is the downstream loss at the returned structure.
    """

    params: dict[str, Any]
    forward: Optional[str] = "argmax"
    calls = 1
    backward_passes = 1
    one_point = True

    def estimator(self, **params: Any) -> Estimator:
        return Estimator.from_params(Params({**self.params, **params}))

    def structures(self, names: tuple[str, ...] = STRUCTURES) -> list[str]:
        """Those of `names` that the estimator takes."""
        needs_rows = self.estimator().needs_independent_rows
        return [name for name in names if structure_of(name).independent_rows or not needs_rows]

    def problems(self, names: tuple[str, ...] = STRUCTURES, **arguments: Any) -> Iterator[Problem]:
        """One of each structure. What fails says which by its oracle's case."""
        return (problem(name, **arguments) for name in self.structures(names))

    @pytest.fixture
    def structure_name(self, request: pytest.FixtureRequest) -> str:
        """From test to test another one, and another sequence for each estimator."""
        tests = [name for name in dir(type(self)) if name.startswith("test_")]
        names = self.structures()
        start = zlib.crc32(type(self).__name__.encode())
        return names[(start + tests.index(request.function.__name__)) % len(names)]

    def expected_forward(self, given: Problem) -> torch.Tensor:
        maps = {
            "argmax": given.oracle.argmax,
            "marginals": given.oracle.marginals,
            "sparsemap": given.oracle.project,
        }
        return maps[self.forward](given.scores)

    # ------------------------------------------------------------------------------- formulas

    def test_output(self, structure_name):
        given = problem(structure_name)
        output = run(self.estimator(), given).output
        assert isinstance(output, EstimatorOutput)
        assert output.value.shape == given.scores.shape
        assert output.value.dtype == given.scores.dtype
        assert output.instance_loss.shape == (len(given.scores),)
        assert (output.value[~given.oracle.legal] == 0).all()
        # The outputs are those at the returned structure, and so is the loss: the surrogate changes gradients,
        # never values.
        plain = given.downstream(output.value.detach())
        torch.testing.assert_close(output.outputs["logits"], plain["logits"], rtol=0, atol=1e-9)
        if self.one_point:
            torch.testing.assert_close(output.instance_loss, plain["instance_loss"], rtol=0, atol=1e-9)

    def test_passes_through_the_downstream_model(self, structure_name):
        given = problem(structure_name)
        run(self.estimator(), given)
        assert given.downstream.calls == self.calls
        assert given.downstream.backward_passes == self.backward_passes

    def test_gradient_is_zero_at_parts_that_do_not_exist(self, structure_name):
        given = problem(structure_name, tokens=(3, 0, 2))
        gradient = run(self.estimator(), given).gradient
        assert (gradient[~given.oracle.legal] == 0).all()
        assert gradient.isfinite().all()

    def test_forbidden_parts(self, structure_name):
        """-inf scores that leave a feasible structure: everything stays finite, and the part stays out."""
        given = problem(structure_name)
        best = given.oracle.argmax(given.scores)
        forbidden = (torch.rand(given.scores.shape, generator=torch.Generator().manual_seed(3)) < 0.4) & (best == 0)
        given = given._replace(scores=given.scores.masked_fill(forbidden, -float("inf")))
        result = run(self.estimator(), given)
        assert result.gradient.isfinite().all()
        assert result.output.instance_loss.isfinite().all()
        assert (result.output.value[forbidden] == 0).all()
        assert all(gradient.isfinite().all() for gradient in result.parameters.values())

    def test_extreme_scores(self, structure_name):
        given = problem(structure_name)
        given = given._replace(scores=given.scores * 1e4)
        result = run(self.estimator(), given)
        assert result.gradient.isfinite().all()

    # ----------------------------------------------------- the surrogate belongs to one instance

    def test_what_trainers_make_of_the_losses(self, structure_name):
        """
        The gradient of an instance is `c` times its surrogate with `c = d(total) / d(instance loss)`: whatever the
        scale, the mean over the batch, weights of any size and sign, instances that are left out, a nonlinear total.
        """
        given = problem(structure_name)
        plain = run(self.estimator(), given)
        losses = plain.output.instance_loss.detach()
        weights = torch.tensor([0.0, 1 / 3, 700.0, -2.0], dtype=torch.float64)
        ones = torch.ones_like(losses)
        totals: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = {
            "scale 1/4": (lambda losses: 0.25 * losses.sum(), 0.25 * ones),
            "scale 65,536": (lambda losses: 65_536.0 * losses.sum(), 65_536.0 * ones),
            "mean": (torch.mean, ones / len(losses)),
            "weights": (lambda losses: (weights * losses).sum(), weights),
            "the first alone": (lambda losses: losses[0], torch.eye(len(losses), dtype=torch.float64)[0]),
            "squares": (lambda losses: (losses**2).sum(), 2 * losses),
        }
        for name, (combine, factors) in totals.items():
            found = run(self.estimator(), given, combine)
            for instance, expected, factor in zip(found.gradient, plain.gradient, factors, strict=True):
                assert_same(instance, factor * expected, name=name)
                assert factor != 0 or (instance == 0).all(), name
            if name.startswith("scale"):
                for key, gradient in plain.parameters.items():
                    assert_same(found.parameters[key] / factors[0], gradient, name=name)

    def test_loss_scale_in_single_precision(self, structure_name):
        given = problem(structure_name, dtype=torch.float32)
        plain = run(self.estimator(), given)
        scaled = run(self.estimator(), given, lambda losses: 65_536.0 * losses.sum())
        assert_same(scaled.gradient / 65_536.0, plain.gradient)

    def test_a_supervised_loss_beside(self, structure_name):
        given = problem(structure_name)
        plain = run(self.estimator(), given).gradient
        scores = given.scores.clone().requires_grad_()
        torch.manual_seed(0)
        output = self.estimator()(scores, given.mask, given.structure, given.downstream)
        (0.5 * output.instance_loss.sum() + 0.1 * (scores**2).sum()).backward()
        assert_same(scores.grad, 0.5 * plain + 0.2 * given.scores)

    def test_backward_twice(self, structure_name):
        """With a retained graph and another weight, the second pass adds its own multiple."""
        given = problem(structure_name)
        plain = run(self.estimator(), given).gradient
        scores = given.scores.clone().requires_grad_()
        torch.manual_seed(0)
        output = self.estimator()(scores, given.mask, given.structure, given.downstream)
        output.instance_loss.sum().backward(retain_graph=True)
        (3 * output.instance_loss[:2]).sum().backward()
        factor = torch.tensor([4.0, 4.0, 1.0, 1.0], dtype=torch.float64)
        gradient = torch.zeros_like(scores) if scores.grad is None else scores.grad
        assert_same(gradient, factor.view(-1, *[1] * (scores.dim() - 1)) * plain)

    def test_scores_from_a_model(self, structure_name):
        """
        In a model the scores are not leaves: its parameters get their vector-Jacobian product, by `backward()` and by
        `torch.autograd.grad`, which walks fewer nodes.
        """
        given = problem(structure_name)
        plain = run(self.estimator(), given).gradient
        expected = (plain * 2 * given.scores).sum().item()
        for use_backward in (True, False):
            weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
            torch.manual_seed(0)
            output = self.estimator()(given.scores * (2 * weight), given.mask, given.structure, given.downstream)
            total = output.instance_loss.sum()
            if use_backward:
                total.backward()
                gradient = weight.grad
            else:
                (gradient,) = torch.autograd.grad(total, weight, allow_unused=True)
            found = 0.0 if gradient is None else gradient.item()
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)

    # ------------------------------------------------------------------- the downstream model

    def test_downstream_parameters_learn_as_from_a_plain_forward(self, structure_name):
        given = problem(structure_name)
        result = run(self.estimator(), given)
        given.downstream.zero_grad()
        given.downstream.instance_loss(result.output.value.detach()).sum().backward()
        for name, p in given.downstream.named_parameters():
            assert_same(result.parameters[name], p.grad)

    def test_forward_touches_no_gradient(self, structure_name):
        """Nothing is zeroed or accumulated before the trainer's own backward pass."""
        given = problem(structure_name)
        scores = given.scores.clone().requires_grad_()
        scores.grad = torch.full_like(scores, 2.0)
        for p in given.downstream.parameters():
            p.grad = torch.full_like(p, 3.0)
        self.estimator()(scores, given.mask, given.structure, given.downstream)
        assert (scores.grad == 2).all()
        assert all((p.grad == 3).all() for p in given.downstream.parameters())

    def test_a_frozen_downstream_model(self, structure_name):
        given = problem(structure_name)
        plain = run(self.estimator(), given).gradient
        given.downstream.requires_grad_(False)
        scores = given.scores.clone().requires_grad_()
        torch.manual_seed(0)
        output = self.estimator()(scores, given.mask, given.structure, given.downstream)
        if not output.instance_loss.requires_grad:
            assert (plain == 0).all()
            return
        output.instance_loss.sum().backward()
        assert_same(scores.grad, plain)

    def test_frozen_scores(self, structure_name):
        """A frozen parser: the downstream model learns all the same."""
        given = problem(structure_name)
        plain = run(self.estimator(), given).parameters
        given.downstream.zero_grad()
        torch.manual_seed(0)
        output = self.estimator()(given.scores, given.mask, given.structure, given.downstream)
        output.instance_loss.sum().backward()
        for name, p in given.downstream.named_parameters():
            assert_same(p.grad, plain[name])

    # --------------------------------------------------------------- evaluation, prediction

    def test_evaluation(self, structure_name):
        """One downstream call, at the argmax, and no random number drawn."""
        given = problem(structure_name)
        estimator = self.estimator().eval()
        state = torch.get_rng_state()
        for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            given.downstream.points.clear()
            with context():
                output = estimator(given.scores, given.mask, given.structure, given.downstream)
                plain = Downstream(given.scores)(output.value)
                assert torch.equal(output.outputs["logits"], plain["logits"])
                assert torch.equal(output.instance_loss, plain["instance_loss"])
            assert given.downstream.calls == 1
            best = given.oracle.argmax(given.scores)
            torch.testing.assert_close(output.value, best, rtol=0, atol=1e-9)
        assert torch.equal(torch.get_rng_state(), state)

    def test_without_gold(self, structure_name):
        for training in (True, False):
            given = problem(structure_name, gold=False)
            output = self.estimator().train(training)(
                given.scores.clone().requires_grad_(), given.mask, given.structure, given.downstream
            )
            assert output.instance_loss is None
            assert torch.equal(output.value.detach(), given.downstream.points[-1])
            torch.testing.assert_close(output.outputs["logits"], given.downstream(output.value)["logits"])
            if not training:
                assert given.downstream.calls == 2, "one by the estimator, one by this test"

    def test_training_without_gradients(self, structure_name):
        """Under `no_grad`, as in a dry run of a model in training mode."""
        given = problem(structure_name)
        with torch.no_grad():
            output = self.estimator()(given.scores, given.mask, given.structure, given.downstream)
        assert output.instance_loss.isfinite().all()
        assert not output.instance_loss.requires_grad

    def test_switching_modes_changes_nothing(self, structure_name):
        """`eval()` and `train()` are switches, not events."""
        given = problem(structure_name)
        estimator = self.estimator()
        plain = run(estimator, given)
        switched = self.estimator()
        for _ in range(3):
            switched.eval()
            switched.train()
        again = run(switched, given)
        assert torch.equal(again.gradient, plain.gradient)
        assert torch.equal(again.output.value, plain.output.value)

    # ------------------------------------------------------------------------ good manners

    def test_diagnostics(self, structure_name):
        """Those that the class lists, and no others; in training only."""
        given = problem(structure_name)
        for training in (True, False):
            estimator = self.estimator().train(training)
            if training:
                diagnostics = run(estimator, given).output.diagnostics
            else:
                diagnostics = estimator(given.scores, given.mask, given.structure, given.downstream).diagnostics
            assert set(diagnostics) == (set(estimator.diagnostics) if training else set())
            for name, value in diagnostics.items():
                assert value.shape == (len(given.scores),) and not value.requires_grad
                assert value.isfinite().all(), name

    def test_callers_tensors_are_left_alone(self, structure_name):
        given = problem(structure_name)
        scores, mask = given.scores.clone(), given.mask.clone()
        targets = given.downstream.targets.clone()
        run(self.estimator(), given)
        assert torch.equal(given.scores, scores)
        assert torch.equal(given.mask, mask)
        assert torch.equal(given.downstream.targets, targets)

    def test_repeats_with_the_seed(self, structure_name):
        given = problem(structure_name)
        first, second = run(self.estimator(), given, seed=4), run(self.estimator(), given, seed=4)
        assert torch.equal(first.gradient, second.gradient)
        assert torch.equal(first.output.value, second.output.value)

    def test_lower_precision(self, structure_name):
        """What comes in decides the type of what goes out, as under automatic mixed precision."""
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            given = problem(structure_name, dtype=dtype)
            result = run(self.estimator(), given)
            assert result.output.value.dtype == dtype
            assert result.gradient.dtype == dtype
            assert result.gradient.isfinite().all()

    def test_is_registered_and_a_module(self):
        estimator = self.estimator()
        assert isinstance(estimator, Estimator.by_name(self.params["type"]))
        assert isinstance(estimator, torch.nn.Module)
        assert set(estimator.requires) <= set(OPERATIONS)

    def test_check(self):
        """Every structure can do all; some estimators take independent choices only, and say so."""
        for name in CASES:
            structure = structure_of(name)
            if self.structures((name,)):
                self.estimator().check(structure)
            else:
                with pytest.raises(
                    ConfigurationError, match=f"{self.params['type']}.*{structure._name()}.*categorical"
                ):
                    self.estimator().check(structure)

    def test_state_dict_round_trip(self):
        given = problem("categorical")
        estimator, other = self.estimator(), self.estimator()
        run(estimator, given)
        other.load_state_dict(estimator.state_dict())
        assert torch.equal(run(other, given).gradient, run(estimator, given).gradient)


class DeterministicEstimatorTestCase(EstimatorTestCase):
    """For an estimator whose training forward is without noise: its gradient is a formula."""

    def expected_gradient(self, given: Problem) -> torch.Tensor:
        """At the scores, for the sum of the losses, with `self.params`."""
        raise NotImplementedError

    def test_formula(self):
        for name in self.structures():
            for seed in (0, 1):
                given = problem(name, seed=seed)
                result = run(self.estimator(), given)
                assert_same(result.gradient, self.expected_gradient(given), name=name)
                if self.one_point:
                    assert_same(result.output.value.detach(), self.expected_forward(given), 1e-7, name=name)

    def test_gradient_accumulation(self, structure_name):
        """Two half batches, each with half the loss scale, against one whole batch."""
        given = problem(structure_name)
        whole = run(self.estimator(), given, torch.mean)
        scores = given.scores.clone().requires_grad_()
        estimator = self.estimator()
        given.downstream.zero_grad()
        for rows in (slice(0, 2), slice(2, 4)):
            half = given.on(rows)
            output = estimator(scores[rows], half.mask, half.structure, half.downstream)
            (output.instance_loss.mean() / 2).backward()
        assert_same(torch.zeros_like(scores) if scores.grad is None else scores.grad, whole.gradient)
        for name, p in given.downstream.named_parameters():
            assert_same(p.grad, whole.parameters[name])

    def test_an_instance_does_not_depend_on_its_neighbours(self, structure_name):
        given = problem(structure_name)
        batched = run(self.estimator(), given)
        for row, tokens in enumerate(given.oracle.tokens):
            alone = run(self.estimator(), given.alone(row))
            compact = given.oracle.case.compact
            assert_same(alone.gradient[0], compact(batched.gradient[row], tokens))
            torch.testing.assert_close(
                alone.output.value.detach()[0],
                compact(batched.output.value.detach()[row], tokens),
                rtol=0,
                atol=1e-7,
            )
            torch.testing.assert_close(alone.output.instance_loss[0], batched.output.instance_loss[row])

    def test_a_loss_that_ignores_the_structure(self, structure_name):
        """No gradient arrives at z; that is no error, and nothing moves."""
        given = problem(structure_name)
        weight = torch.ones((), dtype=torch.float64, requires_grad=True)
        scores = given.scores.clone().requires_grad_()
        output = self.estimator()(
            scores,
            given.mask,
            given.structure,
            lambda z: {"instance_loss": weight * torch.arange(1.0, len(z) + 1, dtype=torch.float64)},
        )
        output.instance_loss.sum().backward()
        assert weight.grad == 10
        assert scores.grad is None or scores.grad.abs().max() < 1e-9

    def test_formula_in_lower_precision(self):
        for dtype, tolerance in ((torch.float16, 0.03), (torch.bfloat16, 0.2), (torch.float32, 1e-4)):
            for given in self.problems(FEW_STRUCTURES, dtype=dtype):
                gradient = run(self.estimator(), given).gradient.double()
                scores = given.scores.double()
                exact = given._replace(scores=scores, downstream=Downstream(scores))
                torch.testing.assert_close(gradient, self.expected_gradient(exact), rtol=tolerance, atol=tolerance)
