import torch

from tests.enumeration import CASES
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase


class TestUndirectedTree(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["undirected_tree"]

    def test_larger_graphs_give_spanning_trees(self):
        scores = torch.randn(2, 25, 25, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        mask = torch.arange(25) < torch.tensor([25, 13])[:, None]
        for parts in (self.structure.argmax(scores, mask), *self.structure.sample(scores, mask, 2)):
            for tree, number in zip(parts, (25, 13), strict=True):
                assert torch.equal(tree, tree.mT) and tree.sum() == 2 * (number - 1)
                reached = torch.linalg.matrix_power(tree[:number, :number] + torch.eye(number).double(), number)
                assert (reached > 0).all()
        marginals = self.structure.marginals(scores, mask)
        torch.testing.assert_close(marginals, marginals.mT)
        torch.testing.assert_close(marginals.sum((1, 2)), torch.tensor([48.0, 24.0], dtype=torch.float64))
