import itertools

import pytest
import torch

from spigot_allennlp.functional.projective import (
    projective_heads,
    projective_log_partition,
    projective_marginals,
    projective_sample,
    projective_top_k,
)
from spigot_allennlp.functional.trees import arcs_from_heads
from tests.enumeration import has_one_root, is_tree
from tests.functional.tree_functions_test_case import TreeFunctionsTestCase, prefix_mask, roots


class TestProjective(TreeFunctionsTestCase):
    heads = staticmethod(projective_heads)
    log_partition = staticmethod(projective_log_partition)
    marginals = staticmethod(projective_marginals)
    sample = staticmethod(projective_sample)
    top_k = staticmethod(projective_top_k)
    projective = True
    tolerance = {torch.float32: {"atol": 1e-5, "rtol": 1e-6}, torch.float64: {"atol": 1e-9, "rtol": 1e-9}}
    highest_marginal = {torch.float32: 1 + 1e-6, torch.float64: 1 + 1e-12}
    # What the rounding of sums costs in float32, where argmax works.
    argmax_rounding = {torch.float32: 2e-6, torch.float64: 1e-9}
    padding_tolerance = dict.fromkeys([torch.float32, torch.float64], {"atol": 0.0, "rtol": 0.0})


def log_domain(scores: torch.Tensor, single_root: bool) -> torch.Tensor:
    """The log-partition function of one long sentence, as plainly as possible, for autograd."""
    tokens = len(scores)
    zero = scores.new_zeros(())
    complete = {(token, token): zero for token in range(tokens)}
    arcs = {}
    for width, i in itertools.product(range(1, tokens), range(tokens)):
        j = i + width
        if j >= tokens:
            continue
        splits = [i] if single_root and i == 0 else range(i, j)
        joined = torch.stack([complete[i, r] + complete[j, r + 1] for r in splits]).logsumexp(0)
        arcs[i, j] = joined + scores[j, i]
        complete[i, j] = torch.stack([arcs[i, m] + complete[m, j] for m in range(i + 1, j + 1)]).logsumexp(0)
        if i > 0:
            arcs[j, i] = joined + scores[i, j]
            complete[j, i] = torch.stack([arcs[j, m] + complete[m, i] for m in range(i, j)]).logsumexp(0)
    return complete[0, tokens - 1]


class TestLongSentences:
    @pytest.mark.parametrize("scale", [0.0, 1.0, 4.0, 30.0, 1e4])
    @roots
    def test_against_the_log_domain(self, single_root: bool, scale: float) -> None:
        torch.manual_seed(9)
        scores = scale * torch.randn(31, 31) + 100 * scale * torch.randn(31, 1)
        exact_scores = scores.double().requires_grad_()
        exact = log_domain(exact_scores, single_root)
        (marginals,) = torch.autograd.grad(exact, exact_scores)
        mask = torch.ones(1, 31, dtype=torch.bool)
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
            given = scores[None].to(dtype)
            ours = projective_log_partition(given, mask, single_root)
            torch.testing.assert_close(ours[0].double(), exact.detach(), atol=tolerance, rtol=1e-6)
            torch.testing.assert_close(
                projective_marginals(given, mask, single_root)[0].double(), marginals, atol=tolerance, rtol=0
            )
        _, best = projective_top_k(scores[None].double(), mask, 1, single_root)
        found = arcs_from_heads(projective_heads(scores[None].double(), mask, single_root), torch.double)
        torch.testing.assert_close((found * scores.double()).sum((1, 2)), best[:, 0])
        assert best[0, 0] <= exact + 1e-6

    @pytest.mark.parametrize("scale", [0.5, 6.0, 1e4])
    def test_two_hundred_words(self, scale: float) -> None:
        torch.manual_seed(10)
        scores = scale * torch.randn(2, 201, 201)
        mask = prefix_mask([201, 150], 201)
        exact = projective_marginals(scores.double(), mask)
        marginals = projective_marginals(scores.clone().requires_grad_(), mask)
        torch.testing.assert_close(marginals.double(), exact, atol=2e-5, rtol=0)
        sums = exact.sum(-1)
        torch.testing.assert_close(sums[:, 1:], mask[:, 1:].double(), atol=1e-9, rtol=0)
        # ROOT has one word.
        torch.testing.assert_close(exact[:, :, 0].sum(1), torch.ones(2, dtype=torch.double))
        for heads, length in zip(projective_heads(scores, mask).tolist(), [201, 150], strict=True):
            assert is_tree(heads[1:length]) and has_one_root(heads[1:length])
        # Any direction's derivative sums to 0 over the heads of a word, as probabilities do.
        scores.requires_grad_()
        (product,) = torch.autograd.grad(projective_marginals(scores, mask), scores, torch.randn(scores.shape))
        assert product.isfinite().all() and product.sum(-1).abs().max() < 1e-3

    def test_confident_scores_over_a_hopeless_range(self) -> None:
        """The best tree stands out, and most charts' cells are far below what floating point can hold."""
        torch.manual_seed(11)
        heads = projective_heads(torch.randn(1, 61, 61), mask := torch.ones(1, 61, dtype=torch.bool))
        scores = 1e3 * (arcs_from_heads(heads) + 0.01 * torch.randn(1, 61, 61))
        torch.testing.assert_close(projective_marginals(scores, mask), arcs_from_heads(heads), atol=1e-6, rtol=0)
