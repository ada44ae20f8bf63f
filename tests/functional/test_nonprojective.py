import pytest
import torch

from spigot_allennlp.functional.nonprojective import (
    nonprojective_heads,
    nonprojective_log_partition,
    nonprojective_marginals,
    nonprojective_sample,
    nonprojective_top_k,
)
from spigot_allennlp.functional.trees import arcs_from_heads
from tests.enumeration import has_one_root, is_tree
from tests.functional.tree_functions_test_case import NOTHING, SCORES, TreeFunctionsTestCase, legal_arcs, roots


class TestNonprojective(TreeFunctionsTestCase):
    heads = staticmethod(nonprojective_heads)
    log_partition = staticmethod(nonprojective_log_partition)
    marginals = staticmethod(nonprojective_marginals)
    sample = staticmethod(nonprojective_sample)
    top_k = staticmethod(nonprojective_top_k)
    projective = False
    tolerance = {torch.float32: {"atol": 1e-6, "rtol": 1e-6}, torch.float64: {"atol": 1e-8, "rtol": 1e-10}}
    highest_marginal = {torch.float32: 1, torch.float64: 1}
    argmax_rounding = {torch.float32: 1e-12, torch.float64: 1e-12}
    padding_tolerance = {torch.float32: {"atol": 1e-13, "rtol": 1e-6}, torch.float64: {"atol": 1e-13, "rtol": 1e-13}}

    def direction(self, scores: torch.Tensor) -> torch.Tensor:
        return super().direction(scores).masked_fill(scores.isnan(), float("nan"))

    def test_scores_of_the_best_trees(self) -> None:
        torch.manual_seed(5)
        scores = torch.randn(2, 5, 5, requires_grad=True)
        heads, totals = self.top_k(scores, torch.ones(2, 5, dtype=torch.bool), 3)
        (gradient,) = torch.autograd.grad(totals.sum(), scores)
        assert torch.equal(gradient, arcs_from_heads(heads).sum(1))


class TestLongSentences:
    @roots
    def test_marginals_are_the_determinants(self, single_root: bool) -> None:
        """Harmless scores, where the textbook's formula is exact, at sizes that are halved unevenly."""
        torch.manual_seed(2)
        for tokens in (8, 14, 32, 51):
            scores = torch.randn(2, tokens, tokens, dtype=torch.double, requires_grad=True)
            weights = scores.exp() * legal_arcs(torch.ones(2, tokens, dtype=torch.bool))
            inner, root = weights[:, 1:, 1:], weights[:, 1:, 0]
            laplacian = torch.diag_embed(inner.sum(-1)) - inner
            if single_root:
                laplacian = torch.cat([root.unsqueeze(2), laplacian[:, :, 1:]], dim=2)
            else:
                laplacian = laplacian + torch.diag_embed(root)
            expected = laplacian.logdet()
            mask = torch.ones(2, tokens, dtype=torch.bool)
            torch.testing.assert_close(nonprojective_log_partition(scores, mask, single_root), expected)
            (gradient,) = torch.autograd.grad(expected.sum(), scores, create_graph=True)
            marginals = nonprojective_marginals(scores, mask, single_root)
            torch.testing.assert_close(marginals, gradient, atol=1e-12, rtol=1e-9)
            direction = torch.randn_like(scores)
            (product,) = torch.autograd.grad(marginals, scores, direction)
            (expected_product,) = torch.autograd.grad(gradient, scores, direction)
            torch.testing.assert_close(product, expected_product, atol=1e-11, rtol=1e-9)

    @roots
    @pytest.mark.parametrize("shift", [100.0, 1e4])
    def test_shifting_a_word_changes_nothing(self, shift: float, single_root: bool) -> None:
        torch.manual_seed(3)
        scores = torch.randn(4, 40, 40, dtype=torch.double)
        mask = torch.ones(4, 40, dtype=torch.bool)
        shifts = shift * torch.randn(4, 40, 1, dtype=torch.double)
        shifted = scores + shifts
        torch.testing.assert_close(
            nonprojective_marginals(shifted, mask, single_root),
            nonprojective_marginals(scores, mask, single_root),
            atol=1e-9,
            rtol=0.0,
        )
        torch.testing.assert_close(
            nonprojective_log_partition(shifted, mask, single_root),
            nonprojective_log_partition(scores, mask, single_root) + shifts[:, 1:].sum((1, 2)),
        )

    @roots
    def test_plain_and_extended_numbers_agree(self, single_root: bool) -> None:
        """One arc that no tree cares about forces the range beyond plain numbers."""
        torch.manual_seed(4)
        scores = 3 * torch.randn(3, 30, 30, dtype=torch.double)
        mask = torch.ones(3, 30, dtype=torch.bool)
        forced = scores.clone()
        scores[:, 4, 7] = NOTHING
        forced[:, 4, 7] = -1e5
        direction = torch.randn_like(scores)
        for function in (
            lambda s: nonprojective_log_partition(s, mask, single_root),
            lambda s: nonprojective_marginals(s, mask, single_root),
            lambda s: torch.autograd.grad(nonprojective_marginals(s.requires_grad_(), mask, single_root), s, direction)[
                0
            ],
        ):
            torch.testing.assert_close(function(forced), function(scores), atol=1e-12, rtol=1e-12)

    @roots
    @pytest.mark.parametrize("kind", ["large", "large ties", "far apart", "loops"])
    def test_extremes_are_distributions_near_the_best_tree(self, kind: str, single_root: bool) -> None:
        torch.manual_seed(5)
        scores = SCORES[kind]((2, 45, 45))
        mask = torch.ones(2, 45, dtype=torch.bool)
        marginals = nonprojective_marginals(scores, mask, single_root)
        assert ((marginals >= 0) & (marginals <= 1)).all()
        torch.testing.assert_close(marginals[:, 1:].sum(-1), torch.ones(2, 44))
        if single_root:
            torch.testing.assert_close(marginals[:, :, 0].sum(-1), torch.ones(2))
        best = nonprojective_heads(scores, mask, single_root)
        if kind == "large":
            torch.testing.assert_close(marginals, arcs_from_heads(best), atol=1e-6, rtol=0.0)
        total = (arcs_from_heads(best, torch.double) * scores).sum((1, 2))
        log_partition = nonprojective_log_partition(scores.double(), mask, single_root)
        # There are fewer than 45 ** 44 trees.
        assert (log_partition >= total - 1e-6).all() and (log_partition <= total + 44 * 4).all()

    @roots
    def test_forced_root(self, single_root: bool) -> None:
        """
        A word that has no head but ROOT, and words that hang on each other in a chain, where halves meet.
        """
        for first in (1, 4, 9):
            scores = torch.full((1, 10, 10), NOTHING)
            order = [first, *(word for word in range(1, 10) if word != first)]
            scores[0, first, 0] = 3.0
            for head, word in zip(order, order[1:], strict=False):
                scores[0, word, head] = -1e4
            mask = torch.ones(1, 10, dtype=torch.bool)
            assert nonprojective_log_partition(scores, mask, single_root).item() == 3.0 - 8e4
            expected = (scores > NOTHING).float()
            torch.testing.assert_close(nonprojective_marginals(scores, mask, single_root), expected)
            samples = nonprojective_sample(scores, mask, 2, single_root)
            for heads in (nonprojective_heads(scores, mask, single_root), *samples):
                assert torch.equal(arcs_from_heads(heads), expected)

    @roots
    def test_adversarial_thousand_tokens(self, single_root: bool) -> None:
        """Cycle within cycle, as deep as the sentence is long."""
        tokens = 1000
        position = torch.arange(tokens, dtype=torch.double)
        dependent, head = position[:, None], position[None, :]
        scores = torch.where(head > dependent, 1 - dependent / tokens, head / tokens).unsqueeze(0)
        mask = torch.ones(1, tokens, dtype=torch.bool)
        heads = nonprojective_heads(scores, mask, single_root)[0].tolist()
        assert is_tree(heads[1:]) and (has_one_root(heads[1:]) or not single_root)
        # The words of the second half under the word before them, those of the first half under the last
        # word, and one of the middle, which has a best head of 0.5, under ROOT.
        value = (arcs_from_heads(torch.tensor([heads]), torch.double) * scores).sum()
        best = scores[0, 1:].masked_fill(torch.eye(tokens, dtype=torch.bool)[1:], 0).amax(-1).sum()
        assert best - 0.6 <= value <= best - 0.4

    @roots
    def test_optimality_certificate(self, single_root: bool) -> None:
        """No tree that one or two changes of a head lead to is better; no tree that is drawn either."""
        torch.manual_seed(6)
        scores = torch.randn(20, 30, 30, dtype=torch.double)
        mask = torch.ones(20, 30, dtype=torch.bool)
        best, totals = nonprojective_top_k(scores, mask, 5, single_root)
        assert torch.equal(best[:, 0], nonprojective_heads(scores, mask, single_root))
        assert (totals.diff(dim=1) <= 0).all()
        samples = nonprojective_sample(8 * scores, mask, 200, single_root)
        sampled = (arcs_from_heads(samples, torch.double) * scores).sum((2, 3))
        for row in range(20):
            known = {tuple(tree) for tree in best[row].tolist()}
            for tree, value in zip(samples[:, row].tolist(), sampled[:, row], strict=True):
                assert tuple(tree) in known or value <= totals[row, -1] + 1e-9
