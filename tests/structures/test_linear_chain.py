import torch

from tests.enumeration import CASES, TAGS
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase


class TestLinearChain(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["linear_chain"]

    def test_neighbouring_parts_agree_on_long_sequences(self):
        """The tag that a part enters is the tag that the next part leaves."""
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(2, 40, TAGS, TAGS, generator=generator, dtype=torch.float64)
        mask = torch.arange(40) < torch.tensor([40, 31])[:, None]
        for parts in (
            self.structure.argmax(scores, mask),
            self.structure.marginals(scores, mask),
            self.structure.project(scores, mask),
            self.structure.sample(scores, mask, 1)[0],
        ):
            entered, left = parts.sum(2)[:, :-1], parts.sum(3)[:, 1:]
            following = mask[:, 1:, None]
            torch.testing.assert_close(left, entered * following, rtol=0, atol=1e-6)
            torch.testing.assert_close(parts.sum((2, 3)), mask.double(), rtol=0, atol=1e-6)

    def test_without_transition_scores_the_tags_are_independent(self):
        generator = torch.Generator().manual_seed(1)
        emissions = torch.randn(1, 6, TAGS, generator=generator, dtype=torch.float64)
        scores = emissions[:, :, None, :].expand(-1, -1, TAGS, -1)
        mask = torch.ones(1, 6, dtype=torch.bool)
        torch.testing.assert_close(self.structure.marginals(scores, mask).sum(2), emissions.softmax(-1))
