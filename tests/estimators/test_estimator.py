"""What concerns all estimators at once: names, configuration, structures that cannot do what one needs."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.estimators import Estimator, EstimatorOutput, Spigot
from spigot_allennlp.structures import LatentStructure, ProjectiveTree
from tests import estimators as tests_of_estimators
from tests.estimators.estimator_test_case import EstimatorTestCase, problem

# (Other tests in this process may register estimators of their own.)
NAMES = [
    name for name in Estimator.list_available() if Estimator.by_name(name).__module__.startswith("spigot_allennlp.")
]
PULLED_BACK = ("ste", "spigot", "spigot_ce", "spigot_eg", "pulled_back")


@LatentStructure.register("argmax_only_for_tests")
class ArgmaxOnly(ProjectiveTree):
    """Can find a best structure, and nothing else."""

    def supports(self, operation: str) -> bool:
        return operation == "argmax"


def subclasses(base: type) -> set[type]:
    return {base}.union(*(subclasses(subclass) for subclass in base.__subclasses__()))


def test_every_estimator_has_the_template_suite():
    for module in pkgutil.iter_modules(tests_of_estimators.__path__):
        importlib.import_module(f"{tests_of_estimators.__name__}.{module.name}")
    covered = {case.params["type"] for case in subclasses(EstimatorTestCase) if hasattr(case, "params")}
    missing = sorted(set(NAMES) - covered)
    assert not missing, (
        f"registered and not tested: {missing}. Add a `class Test...(DeterministicEstimatorTestCase)` with "
        f'`params = {{"type": "{missing[0]}"}}` and its formula as `expected_gradient`, or, if it draws noise, a '
        "`class Test...(EstimatorTestCase)` with a test of its distribution. See docs/extending/estimator.md."
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_bare_string_is_the_type_with_its_defaults(name):
    estimator = Estimator.from_params(Params({"estimator": name}).pop("estimator"))
    assert isinstance(estimator, Estimator.by_name(name))
    given = problem("projective_tree")
    output = estimator(given.scores, given.mask, given.structure, given.downstream)
    assert isinstance(output, EstimatorOutput)


def test_an_unknown_name_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="spiggot"):
        Estimator.from_params(Params({"type": "spiggot"}))


def test_an_unknown_key_is_a_configuration_error():
    for name in NAMES:
        with pytest.raises(ConfigurationError, match="stepsize"):
            Estimator.from_params(Params({"type": name, "stepsize": 1.0}))


# Of every estimator that has the key.
BAD_VALUES = {
    "step_size": (0, -1.5, float("nan")),
    "num_steps": (0, -3),
    "max_gradient_norm": (0, -1),
    "forward_map": ("softmax",),
    "start": ("zero",),
    "update": ("newton",),
    "intermediate_loss": ("hinge",),
    "temperature": (0, -2.0),
    "num_samples": (0, -1),
    "baseline": ("median",),
    "k": (0, -1),
    "interpolation": (0, -0.5),
    "noise": ("uniform",),
    "noise_scale": (-1.0, float("inf")),
    "projection": ("orthogonal",),
    "distribution": ("softmax",),
    "entropy_weight": (-1.0,),
    "prior_weight": (-1.0,),
}
# Without a range, or with tests of their own.
OTHER_KEYS = {"relaxed_evaluation", "adaptive", "center_gradient", "prior_scores"}


def keys_of(name: str) -> list[str]:
    return list(inspect.signature(Estimator.by_name(name).__init__).parameters)[1:]


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_value_out_of_range_is_a_configuration_error(key):
    """The message says which key, and what it was."""
    for name in NAMES:
        for value in BAD_VALUES[key] if key in keys_of(name) else ():
            with pytest.raises(ConfigurationError) as error:
                Estimator.from_params(Params({"type": name, key: value}))
            assert key in str(error.value) and str(value) in str(error.value), name


def test_every_key_is_tested():
    keys = {key for name in NAMES for key in keys_of(name)}
    assert keys <= BAD_VALUES.keys() | OTHER_KEYS, "add values that are refused to BAD_VALUES"


@pytest.mark.parametrize(
    "key, valid",
    [
        ("forward_map", "sparsemap"),
        ("start", "sparsemap"),
        ("update", "exponentiated_gradient"),
        ("intermediate_loss", "cross_entropy"),
    ],
)
def test_an_unknown_choice_names_the_valid_ones(key, valid):
    with pytest.raises(ConfigurationError, match=valid):
        Estimator.from_params(Params({"type": "pulled_back", key: "nonsense"}))


NEEDS = {name: needs for name in NAMES if (needs := set(Estimator.by_name(name)().requires) - {"argmax"})}


@pytest.mark.parametrize("name", NEEDS)
def test_a_structure_that_cannot_is_a_configuration_error(name):
    """It names the structure, the operation and the estimator that wanted it."""
    with pytest.raises(ConfigurationError) as error:
        Estimator.by_name(name)().check(ArgmaxOnly())
    message = str(error.value)
    assert "argmax_only_for_tests" in message or "ArgmaxOnly" in message
    assert name in message or Estimator.by_name(name).__name__ in message
    # Quoted, because some estimators are called like the operation that they need.
    assert any(f"'{operation}'" in message for operation in NEEDS[name])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEEDS])
def test_what_needs_only_the_argmax_takes_such_a_structure(name):
    estimator = Estimator.by_name(name)()
    estimator.check(ArgmaxOnly())
    given = problem("projective_tree")
    scores = given.scores.clone().requires_grad_()
    output = estimator(scores, given.mask, ArgmaxOnly(single_root=True), given.downstream)
    output.instance_loss.sum().backward()


@pytest.mark.parametrize(
    "params, operation",
    [
        ({"type": "ste", "forward_map": "marginals"}, "marginals"),
        ({"type": "ste", "forward_map": "sparsemap"}, "project"),
        ({"type": "pulled_back", "update": "projected_gradient"}, "project"),
        ({"type": "pulled_back", "update": "exponentiated_gradient"}, "marginals"),
        ({"type": "pulled_back", "update": "gradient", "start": "marginals"}, "marginals"),
        (
            {
                "type": "pulled_back",
                "update": "gradient",
                "start": "argmax",
                "intermediate_loss": "cross_entropy",
            },
            "marginals",
        ),
        (
            {
                "type": "pulled_back",
                "update": "gradient",
                "start": "argmax",
                "intermediate_loss": "sparsemap",
            },
            "project",
        ),
    ],
    ids=str,
)
def test_what_is_needed_follows_from_the_choices(params, operation):
    with pytest.raises(ConfigurationError, match=operation):
        Estimator.from_params(Params(params)).check(ArgmaxOnly())


def test_a_composition_of_argmax_alone_needs_nothing_else():
    estimator = Estimator.from_params(
        Params(
            {
                "type": "pulled_back",
                "start": "argmax",
                "update": "gradient",
                "intermediate_loss": "perceptron",
                "forward_map": "argmax",
            }
        )
    )
    estimator.check(ArgmaxOnly())


def test_bad_scores_are_refused():
    """What the structure refuses, no estimator hides."""
    given = problem("projective_tree")
    scores = given.scores.clone()
    scores[0, 1, 0] = float("nan")
    for name in NAMES:
        with pytest.raises(ValueError, match="(?i)nan"):
            Estimator.by_name(name)()(scores, given.mask, given.structure, given.downstream)


def test_a_loss_that_is_not_per_instance_is_refused():
    """A scalar loss would silently mix the instances."""
    given = problem("projective_tree")
    scores = given.scores.clone().requires_grad_()
    for name in NAMES:
        with pytest.raises(ValueError, match="instance_loss"):
            Estimator.by_name(name)()(scores, given.mask, given.structure, lambda z: {"instance_loss": z.sum()})


def test_spigot_differs_with_the_projection():
    """Exact and relaxed projections are the structure's choice, and the estimator follows it."""
    gradients = []
    for structure_name in ("projective_tree", "projective_tree_relaxed"):
        given = problem(structure_name, tokens=(4, 4, 4, 4))
        scores = given.scores.clone().requires_grad_()
        output = Estimator.by_name("spigot")()(scores, given.mask, given.structure, given.downstream)
        output.instance_loss.sum().backward()
        gradients.append(scores.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3
    for gradient in gradients:
        # z - m: each word's row of heads sums to 1 in both.
        torch.testing.assert_close(gradient.sum(-1), torch.zeros_like(gradient.sum(-1)), rtol=0, atol=1e-6)


class TestWhatIsGiven:
    """One message each, instead of an `AttributeError` or silence."""

    scores, mask = torch.zeros(2, 3, 3), torch.ones(2, 3, dtype=torch.bool)

    @pytest.mark.parametrize("training", [True, False])
    def test_a_closure_that_returns_a_tensor(self, training):
        with pytest.raises(TypeError, match="downstream returned a Tensor; valid: a dictionary with 'instance_loss'"):
            Spigot().train(training)(self.scores, self.mask, ProjectiveTree(), lambda z: z.sum((1, 2)))

    def test_structure_and_closure_swapped(self):
        with pytest.raises(TypeError, match="are function, ProjectiveTree; valid: .*structure, downstream"):
            Spigot()(self.scores, self.mask, lambda z: {"instance_loss": z.sum((1, 2))}, ProjectiveTree())

    def test_a_loss_by_another_name(self):
        with pytest.raises(ValueError, match="downstream returned 'loss', but no 'instance_loss'"):
            Spigot()(self.scores, self.mask, ProjectiveTree(), lambda z: {"loss": z.sum((1, 2))})
