import importlib
import inspect
import pkgutil

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import (
    ArcGraph,
    LatentStructure,
    NonprojectiveTree,
    ProjectiveTree,
    SingleHead,
)
from tests import structures as tests_of_structures
from tests.enumeration import CASES
from tests.structures.structure_test_case import StructureTestCase

# (Other tests in this process may register structures of their own.)
NAMES = {
    name: LatentStructure.by_name(name)
    for name in LatentStructure.list_available()
    if LatentStructure.by_name(name).__module__.startswith("spigot_allennlp.")
}


def keys_of(name: str) -> dict:
    """What the constructor cannot do without, as a case has it."""
    parameters = list(inspect.signature(NAMES[name].__init__).parameters.values())[1:]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    keys = next((case.params for case in CASES.values() if case.params["type"] == name), {"factor": "categorical"})
    return {key: keys[key] for key in needed}


def subclasses(base: type) -> set[type]:
    return {base}.union(*(subclasses(subclass) for subclass in base.__subclasses__()))


def test_every_structure_has_the_template_suite():
    for module in pkgutil.iter_modules(tests_of_structures.__path__):
        importlib.import_module(f"{tests_of_structures.__name__}.{module.name}")
    # A product is tested over the other structures, in tests/structures/test_product.py.
    suites = [suite for suite in subclasses(StructureTestCase) if hasattr(suite, "case")]
    covered = {"product", *(suite.case.params["type"] for suite in suites)}
    missing = sorted(set(NAMES) - covered)
    assert not missing, (
        f"registered and not tested: {missing}. To CASES in tests/enumeration.py add a case with a list of all its "
        "structures, and to tests/structures a `class Test...(StructureTestCase)` with that `case` (or one of "
        "PrefixMaskTestCase, NonEmptyTestCase). See docs/extending/structure.md."
    )
    uncovered = {name for name, case in CASES.items() if case.params["type"] not in covered}
    assert not uncovered, f"cases of tests/enumeration.py without a test class: {sorted(uncovered)}"


@pytest.mark.parametrize("name", [name for name in NAMES if not keys_of(name)])
def test_a_bare_string_is_the_type_with_its_defaults(name):
    structure = LatentStructure.from_params(Params({"structure": name}).pop("structure"))
    assert type(structure) is NAMES[name]


def test_the_default_is_projective_trees():
    assert LatentStructure.default_implementation == "projective_tree"
    assert type(LatentStructure.from_params(Params({}))) is ProjectiveTree


def test_an_unknown_name_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="hedge"):
        LatentStructure.from_params(Params({"type": "hedge"}))


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_is_a_configuration_error(name):
    with pytest.raises(ConfigurationError, match="multiroot"):
        LatentStructure.from_params(Params({"type": name, **keys_of(name), "multiroot": True}))


def test_structures_are_stateless():
    """No parameters, no buffers, nothing that a call changes."""
    for name, structure_class in NAMES.items():
        structure = LatentStructure.from_params(Params({"type": name, **keys_of(name)}))
        assert not isinstance(structure, torch.nn.Module)
        before = dict(vars(structure))
        if structure_class in (ProjectiveTree, NonprojectiveTree, SingleHead, ArcGraph):
            structure.marginals(torch.randn(1, 4, 4), torch.ones(1, 4, dtype=torch.bool))
            assert vars(structure) == before


@pytest.mark.parametrize("name, dimensions", [("categorical", 1), ("single_head", 2), ("arc_graph", 2)])
def test_instances_without_parts_have_the_empty_structure(name, dimensions):
    structure = LatentStructure.by_name(name)()
    scores, mask = torch.zeros(2, *[0] * dimensions), torch.ones(2, 0, dtype=torch.bool)
    assert structure.argmax(scores, mask).shape == scores.shape
    assert structure.sample(scores, mask, 3).shape == (3, *scores.shape)
    parts, totals = structure.top_k(scores, mask, 2)
    assert parts.shape == (2, 2, *scores.shape[1:]) and totals.tolist() == [[0.0, -torch.inf]] * 2
    assert structure.log_partition(scores, mask).tolist() == [0.0, 0.0]
