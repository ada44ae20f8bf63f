import torch

from tests.enumeration import CASES
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase, Problem


class TestSingleHead(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["single_head"]

    def test_rows_are_independent(self):
        """Each word's row is a softmax over the other tokens, so changing one row leaves the others."""
        scores, mask, _ = self.batch(Problem((5,), 0, "normal", 0))
        changed = scores.clone()
        changed[0, 2] = changed[0, 2].flip(0) * 3
        for operation in (self.structure.marginals, self.structure.project, self.structure.argmax):
            before, after = operation(scores, mask), operation(changed, mask)
            rows = torch.tensor([0, 1, 3, 4])
            assert torch.equal(before[0, rows], after[0, rows])
        logits = scores[0].masked_fill(torch.eye(5, dtype=torch.bool), -float("inf"))
        torch.testing.assert_close(self.structure.marginals(scores, mask)[0, 1:], logits.softmax(-1)[1:])
