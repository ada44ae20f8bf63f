import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import (
    ArcGraph,
    Categorical,
    LabeledArcGraph,
    LatentStructure,
    LinearChain,
    NonprojectiveTree,
    ProjectiveTree,
    SingleHead,
)

NAMES = {
    "categorical": Categorical,
    "single_head": SingleHead,
    "projective_tree": ProjectiveTree,
    "nonprojective_tree": NonprojectiveTree,
    "arc_graph": ArcGraph,
    "labeled_arc_graph": LabeledArcGraph,
    "linear_chain": LinearChain,
}


@pytest.mark.parametrize("name", NAMES)
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
        LatentStructure.from_params(Params({"type": name, "multiroot": True}))


def test_structures_are_stateless():
    """No parameters, no buffers, nothing that a call changes."""
    for structure_class in NAMES.values():
        structure = structure_class()
        assert not isinstance(structure, torch.nn.Module)
        before = dict(vars(structure))
        if structure_class in (ProjectiveTree, NonprojectiveTree, SingleHead, ArcGraph):
            structure.marginals(torch.randn(1, 4, 4), torch.ones(1, 4, dtype=torch.bool))
            assert vars(structure) == before
