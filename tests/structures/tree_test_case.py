import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import LatentStructure
from tests.structures.structure_test_case import NonEmptyTestCase, PrefixMaskTestCase


class TreeTestCase(PrefixMaskTestCase, NonEmptyTestCase):
    """What all four kinds of tree have in common, at sizes beyond enumeration."""

    def large(self, words: int = 25, batch: int = 3, scale: float = 1.0):
        generator = torch.Generator().manual_seed(words)
        scores = scale * torch.randn(batch, words + 1, words + 1, generator=generator, dtype=torch.float64)
        lengths = torch.tensor([words + 1 - 3 * index for index in range(batch)])
        return scores, torch.arange(words + 1) < lengths[:, None]

    def assert_trees(self, arcs: torch.Tensor, mask: torch.Tensor) -> None:
        """Every word has one head and reaches ROOT; one child of ROOT where there must be one."""
        for structure, tokens in zip(arcs, mask.sum(1).tolist(), strict=True):
            rows = structure[1:tokens]
            assert torch.equal(rows.sum(1), torch.ones_like(rows.sum(1)))
            heads = [0, *rows.argmax(1).tolist()]
            for word in range(1, tokens):
                for _ in range(tokens):
                    word = heads[word]
                assert word == 0
            if self.case.params["single_root"]:
                assert structure[:, 0].sum() == 1
            if self.case.params["type"] == "projective_tree":
                spans = [tuple(sorted((word, head))) for word, head in enumerate(heads) if word]
                assert not any(a < c < b < d for a, b in spans for c, d in spans)

    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_long_sentences_give_trees(self, scale):
        scores, mask = self.large(scale=scale)
        best = self.structure.argmax(scores, mask)
        self.assert_trees(best, mask)
        self.assert_trees(self.structure.sample(scores, mask, 2).flatten(0, 1), mask.repeat(2, 1))
        structures, values = self.structure.top_k(scores, mask, 4)
        self.assert_trees(structures.flatten(0, 1), mask.repeat_interleave(4, 0))
        assert torch.equal(structures[:, 0], best)
        assert (values[:, :-1] >= values[:, 1:]).all()
        torch.testing.assert_close((structures * scores[:, None]).flatten(2).sum(2), values)

    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_long_sentences_have_marginals_of_trees(self, scale):
        scores, mask = self.large(scale=scale)
        marginals = self.structure.marginals(scores, mask)
        assert (marginals >= 0).all()
        words = mask.clone()
        words[:, 0] = False
        torch.testing.assert_close(marginals.sum(2), words.double(), rtol=0, atol=1e-8)
        if self.case.params["single_root"]:
            torch.testing.assert_close(marginals[:, :, 0].sum(1), torch.ones(3).double(), rtol=0, atol=1e-8)

    def test_a_sentence_shifted_row_by_row_has_the_same_marginals(self):
        scores, mask = self.large()
        shift = torch.linspace(-1e4, 1e4, scores.size(1), dtype=torch.float64)[None, :, None]
        torch.testing.assert_close(
            self.structure.marginals(scores + shift, mask),
            self.structure.marginals(scores, mask),
            rtol=0,
            atol=1e-7,
        )

    def test_a_default_needs_no_keys(self):
        tree = LatentStructure.from_params(Params({"type": self.case.params["type"]}))
        explicit = LatentStructure.from_params(
            Params({"type": self.case.params["type"], "single_root": True, "projection": "exact"})
        )
        scores, mask, _ = self.fixed_batch()
        assert torch.equal(tree.marginals(scores, mask), explicit.marginals(scores, mask))
        assert torch.equal(tree.project(scores, mask), explicit.project(scores, mask))

    def test_an_unknown_projection_is_a_configuration_error(self):
        with pytest.raises(ConfigurationError, match="sideways"):
            LatentStructure.from_params(Params({"type": self.case.params["type"], "projection": "sideways"}))


class ExactProjectionTestCase(TreeTestCase):
    @pytest.mark.parametrize("step", [0.1, 1.0, 30.0])
    def test_the_projection_of_long_sentences_is_optimal(self, step):
        """`<point - p, y - p> <= 0` for every tree y, of which the argmax is the worst one."""
        scores, mask = self.large()
        gradient = torch.randn(scores.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        points = self.structure.argmax(scores, mask) - step * gradient
        projection = self.structure.project(points, mask)
        slack = (points - projection).masked_fill(~self.structure.legal_parts(points, mask), 0)
        worst = self.structure.argmax(slack, mask)
        gap = (slack * (worst - projection)).flatten(1).sum(1)
        assert (gap <= 1e-6).all()
        # The identity on its own results; projecting an outside point moves it.
        torch.testing.assert_close(self.structure.project(projection, mask), projection, rtol=0, atol=1e-3)
        words = mask.clone()
        words[:, 0] = False
        torch.testing.assert_close(projection.sum(2), words.double(), rtol=0, atol=1e-6)
        assert (projection >= -1e-9).all()

    def test_the_projection_is_not_the_row_simplex(self):
        """Exact and relaxed are two things: some points have different projections."""
        relaxed = LatentStructure.from_params(Params({**self.case.params, "projection": "single_head"}))
        scores, mask = self.large()
        assert (self.structure.project(scores, mask) - relaxed.project(scores, mask)).abs().max() > 0.1
