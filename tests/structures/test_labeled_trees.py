import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import LatentStructure, NonprojectiveTree, ProjectiveTree
from tests.enumeration import CASES
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase


class TestLabeledProjectiveTree(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["labeled_projective_tree"]


class TestLabeledNonprojectiveTree(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["labeled_nonprojective_tree"]


class TestRelaxedLabeledProjectiveTree(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["labeled_projective_tree_relaxed"]


@pytest.mark.parametrize("tree_class", [ProjectiveTree, NonprojectiveTree])
def test_one_label_changes_nothing(tree_class):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 9, 9, generator=generator, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    plain, labeled = tree_class(), tree_class(num_labels=1)
    for operation in ("argmax", "marginals", "project"):
        expected = getattr(plain, operation)(scores, mask)
        found = getattr(labeled, operation)(scores.unsqueeze(-1), mask).squeeze(-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_another_number_of_labels_is_refused():
    with pytest.raises(ValueError, match="num_labels = 3"):
        ProjectiveTree(num_labels=3).argmax(torch.zeros(1, 4, 4, 2), torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_labels_that_is_none_is_a_configuration_error(number):
    with pytest.raises(ConfigurationError, match="num_labels is"):
        LatentStructure.from_params(Params({"type": "projective_tree", "num_labels": number}))
