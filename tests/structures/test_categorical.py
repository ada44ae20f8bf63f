import pytest
import torch

from tests.enumeration import CASES, Oracle
from tests.structures.structure_test_case import NonEmptyTestCase


class TestCategorical(NonEmptyTestCase):
    case = CASES["categorical"]

    def test_without_a_mask_all_options_exist(self):
        scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        everything = torch.ones(3, 4, dtype=torch.bool)
        without, with_mask = self.operations(scores, None), self.operations(scores, everything)
        for name in ("argmax", "log_partition", "marginals", "entropy", "log_prob", "project"):
            assert torch.equal(without[name](), with_mask[name]()), name
        assert without["sample"]().shape == (self.num_samples, 3, 4)
        for found, expected in zip(without["top_k"](), with_mask["top_k"](), strict=True):
            assert torch.equal(found, expected)

    def test_any_set_of_options_may_be_masked(self):
        """Options have no order, so a mask with holes, or without the first option, is as good as any."""
        scores = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        mask = torch.tensor([[False, True, False, True], [True, False, True, True]])
        vertices = torch.eye(4, dtype=torch.float64)
        operations = self.operations(scores, mask)
        for row in range(2):
            oracle = Oracle(vertices[mask[row]], scores[row])
            torch.testing.assert_close(operations["marginals"]()[row], oracle.marginals())
            torch.testing.assert_close(operations["log_partition"]()[row], oracle.log_partition())
            torch.testing.assert_close(operations["project"]()[row], oracle.project(scores[row]))
            assert torch.equal(operations["argmax"]()[row], oracle.argmax())

    def test_ties_go_to_one_option(self):
        assert self.structure.argmax(torch.zeros(2, 3), None).sum(1).tolist() == [1, 1]

    @pytest.mark.parametrize("number", [1, 2, 50])
    def test_closed_forms(self, number):
        scores = torch.randn(2, number, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        torch.testing.assert_close(self.structure.marginals(scores, None), scores.softmax(-1))
        torch.testing.assert_close(self.structure.log_partition(scores, None), scores.logsumexp(-1))
