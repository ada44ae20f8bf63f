import torch

from tests.enumeration import CASES
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase


class TestConstituencyTree(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["constituency_tree"]

    def test_long_sentences_give_binary_trees(self):
        scores = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        mask = torch.arange(20) < torch.tensor([20, 13])[:, None]
        for parts in (self.structure.argmax(scores, mask), *self.structure.sample(scores, mask, 2)):
            for tree, number in zip(parts, (20, 13), strict=True):
                spans = set(map(tuple, tree.nonzero().tolist()))
                assert len(spans) == 2 * number - 1 and (0, number - 1) in spans
                for first, last in spans:
                    splits = [s for s in range(first, last) if {(first, s), (s + 1, last)} <= spans]
                    assert len(splits) == (1 if last > first else 0)
        marginals = self.structure.marginals(scores, mask)
        torch.testing.assert_close(marginals.sum((1, 2)), torch.tensor([39.0, 25.0], dtype=torch.float64))
