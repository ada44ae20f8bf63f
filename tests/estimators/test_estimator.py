"""What concerns all estimators at once: names, configuration, structures that cannot do what one needs."""

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.estimators import Estimator, EstimatorOutput, Spigot
from spigot_allennlp.structures import OPERATIONS, LatentStructure, ProjectiveTree
from tests.estimators.estimator_test_case import problem

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


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_is_a_configuration_error(name):
    with pytest.raises(ConfigurationError, match="stepsize"):
        Estimator.from_params(Params({"type": name, "stepsize": 1.0}))


BAD_VALUES = [
    *[(name, "step_size", value) for name in PULLED_BACK for value in (0, -1.5, float("nan"))],
    *[(name, "num_steps", value) for name in PULLED_BACK for value in (0, -3)],
    *[(name, "max_gradient_norm", value) for name in PULLED_BACK for value in (0, -1)],
    *[(name, "forward_map", "softmax") for name in PULLED_BACK],
    ("pulled_back", "start", "zero"),
    ("pulled_back", "update", "newton"),
    ("pulled_back", "intermediate_loss", "hinge"),
    *[(name, "temperature", value) for name in ("perturb_and_map", "gumbel_softmax") for value in (0, -2.0)],
    ("score_function", "num_samples", 0),
    ("score_function", "baseline", "median"),
    ("minimum_risk", "k", 0),
    *[(name, "interpolation", value) for name in ("imle", "blackbox") for value in (0, -0.5)],
]


@pytest.mark.parametrize("name, key, value", BAD_VALUES)
def test_a_value_out_of_range_is_a_configuration_error(name, key, value):
    """The message says which key, and what it was."""
    with pytest.raises(ConfigurationError) as error:
        Estimator.from_params(Params({"type": name, key: value}))
    assert key in str(error.value)
    assert str(value) in str(error.value)


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


@pytest.mark.parametrize("name", NAMES)
def test_requires_names_operations(name):
    estimator = Estimator.by_name(name)()
    assert isinstance(estimator.requires, tuple)
    assert set(estimator.requires) <= set(OPERATIONS)


NEEDS = {
    "spigot": {"project"},
    "spigot_ce": {"project", "marginals"},
    "spigot_eg": {"marginals"},
    "ste_marginals": {"marginals"},
    "marginals": {"marginals"},
    "sparsemap": {"project"},
    "perturb_and_map": {"marginals"},
    "gumbel_softmax": {"marginals"},
    "score_function": {"sample", "log_prob"},
    "minimum_risk": {"top_k"},
}


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


@pytest.mark.parametrize("name", ["pipeline", "ste", "imle", "blackbox"])
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


@pytest.mark.parametrize("name", NAMES)
def test_bad_scores_are_refused(name):
    """What the structure refuses, no estimator hides."""
    given = problem("projective_tree")
    scores = given.scores.clone()
    scores[0, 1, 0] = float("nan")
    with pytest.raises(ValueError, match="(?i)nan"):
        Estimator.by_name(name)()(scores, given.mask, given.structure, given.downstream)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_not_per_instance_is_refused(name):
    """A scalar loss would silently mix the instances."""
    given = problem("projective_tree")
    scores = given.scores.clone().requires_grad_()
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
