"""
The template suite of the functions of one kind of tree: `test_projective.py` and `test_nonprojective.py` get all of it
by subclassing `TreeFunctionsTestCase`.
"""

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spigot_allennlp.functional.trees import arcs_from_heads
from tests.enumeration import Oracle, has_one_root, is_projective, is_tree, trees

NOTHING = -float("inf")

roots = pytest.mark.parametrize("single_root", [True, False])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

SCORES = {
    "normal": lambda shape: torch.randn(shape),
    "equal": lambda shape: torch.zeros(shape),
    "ties": lambda shape: torch.randint(0, 2, shape).float(),
    "large": lambda shape: 1e4 * torch.randn(shape),
    "large ties": lambda shape: 1e4 * torch.randint(0, 2, shape).float(),
    "shifted rows": lambda shape: torch.randn(shape) + 100 * torch.randn(shape[:2]).unsqueeze(-1),
    "shifted far": lambda shape: torch.randn(shape) + 1e4 * torch.randn(shape[:2]).unsqueeze(-1),
    "far apart": lambda shape: 150 * torch.randint(-3, 4, shape).float(),
    "farther apart": lambda shape: 300 * torch.randint(-3, 4, shape).float(),
    # Words that cling to each other, and to ROOT only with the tiniest probability: an ill-conditioned Laplacian.
    "loops": lambda shape: torch.randn(shape) - 40 * (torch.arange(shape[2]) == 0),
}


def prefix_mask(lengths, tokens: int) -> torch.Tensor:
    return torch.arange(tokens) < torch.as_tensor(lengths)[:, None]


def legal_arcs(mask: torch.Tensor) -> torch.Tensor:
    arcs = mask[:, :, None] & mask[:, None, :]
    arcs[:, 0] = False
    return arcs & ~torch.eye(mask.size(1), dtype=torch.bool)


@st.composite
def batches(draw, kind: str):
    """Ragged batches of up to 4 words; NaN wherever there is no arc."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=20))
    tokens = max(1, max(lengths)) + draw(st.integers(0, 2))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    shape = (len(lengths), tokens, tokens)
    scores = SCORES[kind](shape).to(draw(st.sampled_from([torch.float32, torch.float64])))
    if draw(st.booleans()):
        # A chain of arcs stays, so that there is a tree.
        forbidden = torch.rand(shape) < 0.4
        forbidden.diagonal(-1, 1, 2)[:] = False
        scores = scores.masked_fill(forbidden, NOTHING)
    mask = prefix_mask(lengths, tokens)
    return scores.masked_fill(~legal_arcs(mask), float("nan")), mask, draw(st.booleans())


class TreeFunctionsTestCase:
    """
    # Parameters (class attributes)

    heads, log_partition, marginals, sample, top_k : `staticmethod`
        The functions.
    projective : `bool`
        Which trees they are about.
    tolerance : `Dict[torch.dtype, Dict[str, float]]`
        `atol` and `rtol` of all that is compared with the enumeration, in either precision.
    highest_marginal : `Dict[torch.dtype, float]`
        1, and as much as rounding may add to it.
    argmax_rounding : `Dict[torch.dtype, float]`
        By how much the best tree may miss the best score, relative to the largest score.
    padding_tolerance : `Dict[torch.dtype, Dict[str, float]]`
        `atol` and `rtol` between a sentence alone and the same one padded.
    """

    heads: Callable
    log_partition: Callable
    marginals: Callable
    sample: Callable
    top_k: Callable
    projective: bool
    tolerance: ClassVar[dict]
    highest_marginal: ClassVar[dict]
    argmax_rounding: ClassVar[dict]
    padding_tolerance: ClassVar[dict]

    def oracle(self, scores: torch.Tensor, tokens: int, single_root: bool) -> Oracle:
        """For the scores of one sentence, padded or not."""
        return Oracle(trees(tokens, self.projective, single_root), scores[:tokens, :tokens])

    def direction(self, scores: torch.Tensor) -> torch.Tensor:
        """The gradient of the marginals that comes in; a subclass may say more about where there is no arc."""
        return torch.randn(scores.shape, dtype=scores.dtype)

    # -------------------------------------------------------------------------- against enumeration

    # The health check is about classes that share a test, which is the point here.
    @pytest.mark.parametrize("kind", SCORES)
    @settings(max_examples=12, suppress_health_check=[HealthCheck.differing_executors])
    @given(data=st.data())
    def test_everything(self, kind: str, data) -> None:
        scores, mask, single_root = data.draw(batches(kind))
        before = scores.clone()
        tolerance = self.tolerance[scores.dtype]
        scores.requires_grad_()
        heads = self.heads(scores, mask, single_root)
        log_partition = self.log_partition(scores, mask, single_root)
        marginals = self.marginals(scores, mask, single_root)
        direction = self.direction(scores)
        (product,) = torch.autograd.grad(marginals, scores, direction)
        (gradient,) = torch.autograd.grad(log_partition.sum(), scores)
        best_heads, best_scores = self.top_k(scores, mask, 4, single_root)
        samples = self.sample(scores, mask, 3, single_root)
        scores = scores.detach()
        assert torch.equal(scores.nan_to_num(0.125), before.nan_to_num(0.125))
        assert marginals.dtype == log_partition.dtype == best_scores.dtype == scores.dtype
        assert torch.equal(gradient, marginals)
        assert marginals.min() >= 0 and marginals.max() <= self.highest_marginal[scores.dtype]
        nowhere = ~legal_arcs(mask) | (scores == NOTHING)
        assert not marginals[nowhere].any() and not product[nowhere].any()
        words = mask.clone()
        words[:, 0] = False
        torch.testing.assert_close(marginals.sum(-1), words.to(scores.dtype))
        for output in (heads, *samples):
            assert ((output >= 0) == words).all()
        for row, length in enumerate(mask.sum(1).tolist()):
            if length < 2:
                assert log_partition[row] == 0
                assert best_scores[row].tolist() == [0] + [NOTHING] * 3
                continue
            inner = slice(length), slice(length)
            exact_scores = scores[row].double().requires_grad_()
            exact = self.oracle(exact_scores, length, single_root)
            exact_marginals = exact.marginals()
            (exact_product,) = torch.autograd.grad(
                (exact_marginals * direction[row][inner].double().nan_to_num(0)).sum(), exact_scores, retain_graph=True
            )
            finite = scores[row][inner].double().nan_to_num(0, 0, 0)
            largest = (finite * exact.vertices.amax(0)).abs().max()
            arcs = arcs_from_heads(heads[row, :length], torch.double)
            assert exact.is_vertex(arcs)
            missing = exact.best_score() - (arcs * finite).sum()
            assert missing <= self.argmax_rounding[scores.dtype] * (1 + largest)
            torch.testing.assert_close(log_partition[row].double(), exact.log_partition(), **tolerance)
            torch.testing.assert_close(marginals[row][inner].double(), exact_marginals, **tolerance)
            torch.testing.assert_close(product[row][inner].double(), exact_product[inner].nan_to_num(0), **tolerance)
            torch.testing.assert_close(best_scores[row].double(), exact.top_scores(4), **tolerance)
            found = best_scores[row] > NOTHING
            kept = best_heads[row, found]
            assert len({tuple(tree.tolist()) for tree in kept}) == len(kept)
            for tree, score in zip(kept, best_scores[row], strict=False):
                arcs = arcs_from_heads(tree[:length], torch.double)
                assert exact.is_vertex(arcs)
                torch.testing.assert_close(score.double(), (arcs * finite).sum(), **tolerance)
            assert (best_heads[row, ~found] == -1).all()
            for sample in samples[:, row, :length]:
                assert exact.is_vertex(arcs_from_heads(sample, torch.double))

    @roots
    @pytest.mark.parametrize("kind", ["normal", "shifted rows", "large", "loops"])
    def test_five_words(self, kind: str, single_root: bool) -> None:
        torch.manual_seed(0)
        scores = SCORES[kind]((3, 6, 6)).double()
        mask = torch.ones(3, 6, dtype=torch.bool)
        oracles = [self.oracle(row, 6, single_root) for row in scores]
        assert torch.equal(
            arcs_from_heads(self.heads(scores, mask, single_root), torch.double),
            torch.stack([exact.argmax() for exact in oracles]),
        )
        torch.testing.assert_close(
            self.log_partition(scores, mask, single_root), torch.stack([exact.log_partition() for exact in oracles])
        )
        torch.testing.assert_close(
            self.marginals(scores, mask, single_root),
            torch.stack([exact.marginals() for exact in oracles]),
            atol=1e-12,
            rtol=1e-11,
        )

    @roots
    def test_all_trees_in_order(self, single_root: bool) -> None:
        torch.manual_seed(1)
        number = len(trees(5, self.projective, single_root))
        scores = torch.randn(1, 5, 5, dtype=torch.double)
        mask = torch.ones(1, 5, dtype=torch.bool)
        heads, totals = self.top_k(scores, mask, number + 3, single_root)
        torch.testing.assert_close(totals[0], self.oracle(scores[0], 5, single_root).top_scores(number + 3))
        assert len({tuple(tree.tolist()) for tree in heads[0, :number]}) == number
        assert (heads[0, number:] == -1).all()

    # ---------------------------------------------------------------------------------- derivatives

    @roots
    def test_gradcheck(self, single_root: bool) -> None:
        torch.manual_seed(2)
        scores = torch.randn(3, 5, 5, dtype=torch.double, requires_grad=True)
        mask = prefix_mask([5, 3, 4], 5)
        assert torch.autograd.gradcheck(lambda s: self.marginals(s, mask, single_root), scores)
        assert torch.autograd.gradcheck(lambda s: self.log_partition(s, mask, single_root), scores)
        assert torch.autograd.gradgradcheck(lambda s: self.log_partition(s, mask, single_root), scores)

    @pytest.mark.parametrize("scale", [1e-30, 0.25, 65536.0, 1e30])
    def test_linear_at_any_scale(self, scale: float) -> None:
        torch.manual_seed(3)
        scores = torch.randn(4, 12, 12, requires_grad=True)
        mask = torch.ones(4, 12, dtype=torch.bool)
        marginals = self.marginals(scores, mask)
        direction = torch.randn(scores.shape)
        (one,) = torch.autograd.grad(marginals, scores, direction, retain_graph=True)
        (scaled,) = torch.autograd.grad(marginals, scores, scale * direction)
        torch.testing.assert_close(scaled / scale, one, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    @pytest.mark.parametrize("kind", ["normal", "loops", "far apart"])
    def test_constant_direction_has_no_effect(self, kind: str, dtype: torch.dtype, limit: float) -> None:
        torch.manual_seed(4)
        scores = SCORES[kind]((2, 20, 20)).to(dtype).requires_grad_()
        mask = torch.ones(2, 20, dtype=torch.bool)
        direction = torch.randn(2, 20, 1, dtype=dtype).expand(2, 20, 20)
        for scale in (1, 1e3):
            (product,) = torch.autograd.grad(self.marginals(scores, mask), scores, scale * direction)
            assert product.abs().max() < scale * limit

    # -------------------------------------------------------------------------------------- no tree

    @staticmethod
    def infeasible(single_root: bool) -> torch.Tensor:
        """A word without a head; words that can only hang on each other; for a single root, two that need ROOT."""
        scores = torch.zeros(3, 4, 4)
        scores[0, 2] = NOTHING
        scores[1, 1, [0, 2]] = NOTHING
        scores[1, 3, [0, 2]] = NOTHING
        scores[2, 1, 1:] = NOTHING
        scores[2, 3, 1:] = NOTHING
        return scores if single_root else scores[:2]

    @dtypes
    @roots
    def test_no_tree_at_all(self, single_root: bool, dtype: torch.dtype) -> None:
        scores = self.infeasible(single_root).to(dtype).requires_grad_()
        mask = torch.ones(len(scores), 4, dtype=torch.bool)
        log_partition = self.log_partition(scores, mask, single_root)
        assert (log_partition == NOTHING).all()
        marginals = self.marginals(scores, mask, single_root)
        assert not marginals.any()
        (gradient,) = torch.autograd.grad(marginals, scores, torch.randn(scores.shape, dtype=dtype))
        assert not gradient.any()
        (gradient,) = torch.autograd.grad(log_partition.sum(), scores)
        assert not gradient.any()
        heads, totals = self.top_k(scores, mask, 2, single_root)
        assert (heads == -1).all() and (totals == NOTHING).all()
        for output in (self.heads(scores, mask, single_root), *self.sample(scores, mask, 2, single_root)):
            for row in output.tolist():
                assert is_tree(row[1:])
                assert is_projective(row[1:]) if self.projective else has_one_root(row[1:])
                assert has_one_root(row[1:]) or not single_root

    @dtypes
    def test_nan_stays_visible_and_alone(self, dtype: torch.dtype) -> None:
        scores = torch.zeros(3, 5, 5, dtype=dtype)
        scores[1, 2, 3] = float("nan")
        mask = torch.ones(3, 5, dtype=torch.bool)
        assert self.log_partition(scores, mask).isnan().tolist() == [False, True, False]
        assert self.marginals(scores, mask).isnan().flatten(1).any(1).tolist() == [False, True, False]

    @dtypes
    def test_nan_in_a_gradient_where_there_is_no_arc(self, dtype: torch.dtype) -> None:
        torch.manual_seed(9)
        scores = torch.randn(2, 4, 4, dtype=dtype, requires_grad=True)
        mask = prefix_mask([4, 3], 4)
        marginals, gradient = self.marginals(scores, mask), torch.randn(2, 4, 4, dtype=dtype)
        expected, found = (
            torch.autograd.grad(marginals, scores, gradient.masked_fill(~legal_arcs(mask), garbage), retain_graph=True)
            for garbage in (0.0, float("nan"))
        )
        assert torch.equal(*expected, *found)

    def test_marginals_are_probabilities(self) -> None:
        """By rounding, some would be larger than 1."""
        torch.manual_seed(10)
        marginals = self.marginals(30 * torch.randn(400, 12, 12), torch.ones(400, 12, dtype=torch.bool))
        assert 0 <= marginals.min() and marginals.max() <= 1

    # -------------------------------------------------------------------------------------- samples

    @roots
    @pytest.mark.parametrize("kind", ["normal", "shifted far", "loops"])
    def test_frequencies(self, kind: str, single_root: bool) -> None:
        """On "loops" the random walks of spanning trees are given up, and heads sampled one by one."""
        torch.manual_seed(6)
        scores = SCORES[kind]((2, 5, 5))
        if kind == "loops":
            # Both ways on between two words, so that walks towards a single root do not end either.
            scores[:, 1, 2] += 40
            scores[:, 2, 1] += 40
        mask = prefix_mask([5, 4], 5)
        number = 20000
        samples = self.sample(scores, mask, number, single_root)
        for row, length in enumerate([5, 4]):
            exact = self.oracle(scores[row], length, single_root)
            arcs = arcs_from_heads(samples[:, row, :length], torch.double)
            drawn = (arcs.flatten(1) @ exact.vertices.flatten(1).T == length - 1).double().mean(0)
            expected = exact.log_probabilities().exp()
            # 5 standard deviations
            assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / number).sqrt() + 1e-4).all()

    def test_marginals_of_longer_sentences(self) -> None:
        torch.manual_seed(7)
        scores = 2 * torch.randn(2, 13, 13, dtype=torch.double)
        mask = prefix_mask([13, 9], 13)
        samples = self.sample(scores, mask, 20000)
        expected = self.marginals(scores, mask)
        drawn = arcs_from_heads(samples, torch.double).mean(0)
        assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / 20000).sqrt() + 1e-4).all()

    def test_samples_repeat_with_the_seed(self) -> None:
        scores = torch.zeros(40, 9, 9)
        mask = torch.ones(40, 9, dtype=torch.bool)
        torch.manual_seed(7)
        first = self.sample(scores, mask, 2)
        torch.manual_seed(7)
        assert torch.equal(first, self.sample(scores, mask, 2))
        assert not torch.equal(first[0], first[1])

    # -------------------------------------------------------------------------------------- batches

    @dtypes
    @roots
    def test_padded_is_alone_and_order_does_not_matter(self, single_root: bool, dtype: torch.dtype) -> None:
        torch.manual_seed(8)
        lengths = torch.randint(0, 15, (45,))
        mask = prefix_mask(lengths, 16)
        scale = torch.tensor([1.0, 30.0, 1e4]).repeat(15)[:, None, None]
        scores = torch.randn(45, 16, 16, dtype=dtype) * scale
        permutation = torch.randperm(45)

        def results(s, m):
            s = s.clone().requires_grad_()
            marginals = self.marginals(s, m, single_root)
            return [
                self.heads(s, m, single_root),
                self.log_partition(s, m, single_root),
                marginals,
                torch.autograd.grad((marginals**2).sum(), s)[0],
                *self.top_k(s, m, 2, single_root),
            ]

        together = results(scores, mask)
        for one, other in zip(together, results(scores[permutation], mask[permutation]), strict=True):
            assert torch.equal(one[permutation], other)
        for row in range(0, 45, 5):
            length = max(1, int(lengths[row]))
            alone = results(scores[row : row + 1, :length, :length], mask[row : row + 1, :length])
            for one, other in zip(together, alone, strict=True):
                one = one[row][tuple(slice(size) for size in other[0].shape)]
                torch.testing.assert_close(one, other[0], **self.padding_tolerance[dtype])

    def test_threads(self) -> None:
        torch.manual_seed(9)
        scores = torch.randn(70, 13, 13) * 10
        mask = prefix_mask(torch.randint(0, 14, (70,)), 13)
        threads = torch.get_num_threads()
        try:
            outputs = []
            for number in (1, 3):
                torch.set_num_threads(number)
                outputs.append((self.heads(scores, mask), self.marginals(scores, mask)))
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 1)])
    def test_nothing_to_parse(self, shape) -> None:
        scores, mask = torch.zeros(*shape, shape[1]), torch.ones(shape, dtype=torch.bool)
        assert self.heads(scores, mask).tolist() == torch.full(shape, -1).tolist()
        assert self.log_partition(scores, mask).tolist() == [0] * shape[0]
        assert self.marginals(scores, mask).shape == scores.shape
        assert self.sample(scores, mask, 2).shape == (2, *shape)
        assert self.top_k(scores, mask, 2)[0].shape == (shape[0], 2, shape[1])

    def test_strides_and_inference_mode(self) -> None:
        torch.manual_seed(10)
        scores = torch.randn(6, 6, 5).permute(2, 1, 0)
        mask = torch.ones(5, 6, dtype=torch.bool)
        with torch.inference_mode():
            outputs = self.heads(scores, mask), self.marginals(scores, mask)
        assert torch.equal(outputs[0], self.heads(scores.contiguous(), mask))
        assert torch.equal(outputs[1], self.marginals(scores.contiguous(), mask))
