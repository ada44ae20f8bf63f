import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import KSubset, LatentStructure
from tests.enumeration import CASES, Oracle, subsets
from tests.structures.structure_test_case import NonEmptyTestCase, StructureTestCase


class TestKSubset(NonEmptyTestCase):
    case = CASES["k_subset"]


class TestAtMostKSubset(StructureTestCase):
    case = CASES["k_subset_at_most"]


@pytest.mark.parametrize("exactly", [True, False])
def test_any_set_of_options_may_be_masked(exactly):
    scores = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[False, True, False, True, True], [True, False, True, True, True]])
    structure = KSubset(2, exactly)
    vertices = subsets(5, 2 if exactly else 0, 2)
    for row in range(2):
        oracle = Oracle(vertices[(vertices * ~mask[row]).sum(1) == 0], scores[row])
        torch.testing.assert_close(structure.marginals(scores, mask)[row], oracle.marginals())
        torch.testing.assert_close(structure.log_partition(scores, mask)[row], oracle.log_partition())
        torch.testing.assert_close(structure.project(scores, mask)[row], oracle.project(scores[row]))
        assert torch.equal(structure.argmax(scores, mask)[row], oracle.argmax())


def test_without_a_mask_all_options_exist():
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 6, dtype=torch.bool)
    assert torch.equal(KSubset(3).marginals(scores, None), KSubset(3).marginals(scores, mask))


def test_large_subsets():
    """As many marginals as there are chosen, in order of the scores; elementary symmetric polynomials of 400 scores."""
    scores = 30 * torch.randn(2, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    marginals = KSubset(50).marginals(scores, None)
    torch.testing.assert_close(marginals.sum(1), torch.full((2,), 50.0, dtype=torch.float64))
    assert (marginals.gather(1, scores.argsort(1)).diff(dim=1) >= -1e-12).all()
    torch.testing.assert_close(KSubset(50).project(scores / 30, None).sum(1), torch.full((2,), 50.0).double())


def test_too_few_options_are_refused_with_their_rows():
    mask = torch.arange(5) < torch.tensor([5, 2, 0, 3])[:, None]
    with pytest.raises(ValueError, match=r"k is 3, but rows \[1\] of the batch have \[2\] options"):
        KSubset(3).argmax(torch.zeros(4, 5), mask)
    assert KSubset(3, exactly=False).argmax(torch.ones(4, 5), mask).sum(1).tolist() == [3, 2, 0, 3]


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_that_is_no_number_of_options_is_a_configuration_error(k):
    with pytest.raises(ConfigurationError, match="k is"):
        LatentStructure.from_params(Params({"type": "k_subset", "k": k}))
