import pytest
import torch

from spigot_allennlp.structures import LinearChain
from tests.enumeration import CASES, LABELS, LENGTHS
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase


class TestSemiMarkov(PrefixMaskTestCase, NonEmptyTestCase):
    case = CASES["semi_markov"]

    def test_segments_cover_each_position_once(self):
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(2, 30, 5, 3, 3, generator=generator, dtype=torch.float64)
        mask = torch.arange(30) < torch.tensor([30, 17])[:, None]
        for parts in (
            self.structure.argmax(scores, mask),
            self.structure.marginals(scores, mask),
            self.structure.sample(scores, mask, 1)[0],
        ):
            segments = parts.sum((3, 4))
            covered = torch.zeros(2, 30, dtype=torch.float64)
            for length in range(5):
                for offset in range(length + 1):
                    covered[:, offset:] += segments[:, : 30 - offset, length]
            torch.testing.assert_close(covered, mask.double())

    def test_segments_of_one_position_are_a_linear_chain(self):
        scores = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
        torch.testing.assert_close(
            self.structure.marginals(scores.unsqueeze(2), mask).squeeze(2), LinearChain().marginals(scores, mask)
        )

    @pytest.mark.parametrize("shape", [(2, 4, LENGTHS, LABELS, LABELS + 1), (2, 4, 0, LABELS, LABELS)])
    def test_shapes_that_are_no_segments_are_refused(self, shape):
        with pytest.raises(ValueError, match="lengths, labels, labels"):
            self.structure.argmax(torch.zeros(shape), torch.ones(2, 4, dtype=torch.bool))
