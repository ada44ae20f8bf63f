import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.functional.spanning_tree import (
    nonprojective_heads,
    nonprojective_log_partition,
    nonprojective_marginals,
    nonprojective_sample,
    nonprojective_top_k,
)
from spigot_allennlp.functional.trees import arcs_from_heads
from tests.enumeration import Oracle, has_one_root, is_tree, trees

NOTHING = -float("inf")
roots = pytest.mark.parametrize("single_root", [True, False])


def oracle(scores: torch.Tensor, tokens: int, single_root: bool) -> Oracle:
    """For the scores of one sentence, padded or not."""
    return Oracle(trees(tokens, False, single_root), scores[:tokens, :tokens])


def prefix_mask(lengths, tokens: int) -> torch.Tensor:
    return torch.arange(tokens) < torch.as_tensor(lengths)[:, None]


def legal_arcs(mask: torch.Tensor) -> torch.Tensor:
    arcs = mask[:, :, None] & mask[:, None, :]
    arcs[:, 0] = False
    return arcs & ~torch.eye(mask.size(1), dtype=torch.bool)


SCORES = {
    "normal": lambda shape: torch.randn(shape),
    "equal": lambda shape: torch.zeros(shape),
    "ties": lambda shape: torch.randint(0, 2, shape).float(),
    "large": lambda shape: 1e4 * torch.randn(shape),
    "large ties": lambda shape: 1e4 * torch.randint(0, 2, shape).float(),
    "shifted rows": lambda shape: torch.randn(shape) + 100 * torch.randn(shape[:2]).unsqueeze(-1),
    "shifted far": lambda shape: torch.randn(shape) + 1e4 * torch.randn(shape[:2]).unsqueeze(-1),
    "far apart": lambda shape: 150 * torch.randint(-3, 4, shape).float(),
    # Words that cling to each other, and to ROOT only with the tiniest probability: an ill-conditioned
    # Laplacian.
    "loops": lambda shape: torch.randn(shape) - 40 * (torch.arange(shape[2]) == 0),
}


@st.composite
def batches(draw):
    """Ragged batches of up to 4 words, from harmless to extreme; NaN wherever there is no arc."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    tokens = max(1, max(lengths)) + draw(st.integers(0, 2))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    shape = (len(lengths), tokens, tokens)
    scores = SCORES[draw(st.sampled_from(sorted(SCORES)))](shape)
    scores = scores.to(draw(st.sampled_from([torch.float32, torch.float64])))
    if draw(st.booleans()):
        # A chain of arcs stays, so that there is a tree.
        forbidden = torch.rand(shape) < 0.4
        forbidden.diagonal(-1, 1, 2)[:] = False
        scores = scores.masked_fill(forbidden, NOTHING)
    mask = prefix_mask(lengths, tokens)
    return scores.masked_fill(~legal_arcs(mask), float("nan")), mask, draw(st.booleans())


class TestAgainstEnumeration:
    @settings(max_examples=200)
    @given(batches())
    def test_everything(self, batch) -> None:
        scores, mask, single_root = batch
        before = scores.clone()
        tolerance = {"atol": 1e-8, "rtol": 1e-10}
        if scores.dtype == torch.float32:
            tolerance = {"atol": 1e-6, "rtol": 1e-6}
        scores.requires_grad_()
        heads = nonprojective_heads(scores, mask, single_root)
        log_partition = nonprojective_log_partition(scores, mask, single_root)
        marginals = nonprojective_marginals(scores, mask, single_root)
        direction = torch.randn(scores.shape, dtype=scores.dtype).masked_fill(scores.isnan(), float("nan"))
        (product,) = torch.autograd.grad(marginals, scores, direction)
        (gradient,) = torch.autograd.grad(log_partition.sum(), scores)
        best_heads, best_scores = nonprojective_top_k(scores, mask, 4, single_root)
        samples = nonprojective_sample(scores, mask, 3, single_root)
        scores = scores.detach()
        assert torch.equal(scores.nan_to_num(0.125), before.nan_to_num(0.125))
        assert marginals.dtype == log_partition.dtype == best_scores.dtype == scores.dtype
        assert torch.equal(gradient, marginals)
        assert ((marginals >= 0) & (marginals <= 1)).all()
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
            exact = oracle(exact_scores, length, single_root)
            finite = scores[row][inner].double().nan_to_num(0, 0, 0)
            arcs = arcs_from_heads(heads[row, :length], torch.double)
            assert exact.is_vertex(arcs)
            assert (arcs * finite).sum() >= exact.best_score() - 1e-12 * (1 + finite.abs().max())
            torch.testing.assert_close(log_partition[row].double(), exact.log_partition(), **tolerance)
            torch.testing.assert_close(marginals[row][inner].double(), exact.marginals(), **tolerance)
            (exact_product,) = torch.autograd.grad(
                (exact.marginals() * direction[row][inner].double().nan_to_num(0)).sum(), exact_scores
            )
            torch.testing.assert_close(
                product[row][inner].double(), exact_product[inner].nan_to_num(0), **tolerance
            )
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
        oracles = [oracle(row, 6, single_root) for row in scores]
        assert torch.equal(
            arcs_from_heads(nonprojective_heads(scores, mask, single_root), torch.double),
            torch.stack([exact.argmax() for exact in oracles]),
        )
        torch.testing.assert_close(
            nonprojective_log_partition(scores, mask, single_root),
            torch.stack([exact.log_partition() for exact in oracles]),
        )
        torch.testing.assert_close(
            nonprojective_marginals(scores, mask, single_root),
            torch.stack([exact.marginals() for exact in oracles]),
            atol=1e-10,
            rtol=0.0,
        )

    @roots
    def test_all_trees_in_order(self, single_root: bool) -> None:
        torch.manual_seed(1)
        number = len(trees(5, False, single_root))
        scores = torch.randn(1, 5, 5, dtype=torch.double)
        mask = torch.ones(1, 5, dtype=torch.bool)
        heads, totals = nonprojective_top_k(scores, mask, number + 3, single_root)
        torch.testing.assert_close(totals[0], oracle(scores[0], 5, single_root).top_scores(number + 3))
        assert len({tuple(tree.tolist()) for tree in heads[0, :number]}) == number
        assert (heads[0, number:] == -1).all()


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
            lambda s: torch.autograd.grad(
                nonprojective_marginals(s.requires_grad_(), mask, single_root), s, direction
            )[0],
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


class TestDerivatives:
    @roots
    def test_gradcheck(self, single_root: bool) -> None:
        torch.manual_seed(7)
        scores = torch.randn(3, 5, 5, dtype=torch.double, requires_grad=True)
        mask = prefix_mask([5, 3, 4], 5)
        assert torch.autograd.gradcheck(lambda s: nonprojective_marginals(s, mask, single_root), scores)
        assert torch.autograd.gradcheck(lambda s: nonprojective_log_partition(s, mask, single_root), scores)
        assert torch.autograd.gradgradcheck(
            lambda s: nonprojective_log_partition(s, mask, single_root), scores
        )

    @pytest.mark.parametrize("scale", [1e-30, 0.25, 65536.0, 1e30])
    def test_linear_at_any_scale(self, scale: float) -> None:
        torch.manual_seed(8)
        scores = torch.randn(4, 12, 12, requires_grad=True)
        mask = torch.ones(4, 12, dtype=torch.bool)
        marginals = nonprojective_marginals(scores, mask)
        direction = torch.randn(scores.shape)
        (one,) = torch.autograd.grad(marginals, scores, direction, retain_graph=True)
        (scaled,) = torch.autograd.grad(marginals, scores, scale * direction)
        torch.testing.assert_close(scaled / scale, one, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["normal", "loops", "far apart"])
    def test_constant_direction_has_no_effect(self, kind: str) -> None:
        torch.manual_seed(9)
        scores = SCORES[kind]((2, 20, 20)).double().requires_grad_()
        mask = torch.ones(2, 20, dtype=torch.bool)
        direction = torch.randn(2, 20, 1, dtype=torch.double).expand(2, 20, 20)
        (product,) = torch.autograd.grad(nonprojective_marginals(scores, mask), scores, direction)
        assert product.abs().max() < 1e-12

    def test_scores_of_the_best_trees(self) -> None:
        scores = torch.randn(2, 5, 5, requires_grad=True)
        heads, totals = nonprojective_top_k(scores, torch.ones(2, 5, dtype=torch.bool), 3)
        (gradient,) = torch.autograd.grad(totals.sum(), scores)
        assert torch.equal(gradient, arcs_from_heads(heads).sum(1))


class TestNoTree:
    @staticmethod
    def infeasible(single_root: bool) -> torch.Tensor:
        """
        A word without a head; words that can only hang on each other; for a single root, two that need
        ROOT.
        """
        scores = torch.zeros(3, 4, 4)
        scores[0, 2] = NOTHING
        scores[1, 1, [0, 2]] = NOTHING
        scores[1, 3, [0, 2]] = NOTHING
        scores[2, 1, 1:] = NOTHING
        scores[2, 3, 1:] = NOTHING
        return scores if single_root else scores[:2]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @roots
    def test_every_function(self, single_root: bool, dtype: torch.dtype) -> None:
        scores = self.infeasible(single_root).to(dtype).requires_grad_()
        mask = torch.ones(len(scores), 4, dtype=torch.bool)
        log_partition = nonprojective_log_partition(scores, mask, single_root)
        assert (log_partition == NOTHING).all()
        marginals = nonprojective_marginals(scores, mask, single_root)
        assert not marginals.any()
        (gradient,) = torch.autograd.grad(marginals, scores, torch.randn(scores.shape, dtype=dtype))
        assert not gradient.any()
        (gradient,) = torch.autograd.grad(log_partition.sum(), scores)
        assert not gradient.any()
        heads, totals = nonprojective_top_k(scores, mask, 2, single_root)
        assert (heads == -1).all() and (totals == NOTHING).all()
        for output in (
            nonprojective_heads(scores, mask, single_root),
            *nonprojective_sample(scores, mask, 2, single_root),
        ):
            for row in output.tolist():
                assert is_tree(row[1:]) and has_one_root(row[1:])

    def test_nan_stays_visible_and_alone(self) -> None:
        scores = torch.zeros(3, 5, 5)
        scores[1, 2, 3] = float("nan")
        mask = torch.ones(3, 5, dtype=torch.bool)
        assert nonprojective_log_partition(scores, mask).isnan().tolist() == [False, True, False]
        assert nonprojective_marginals(scores, mask).isnan().flatten(1).any(1).tolist() == [
            False,
            True,
            False,
        ]


class TestSamples:
    @roots
    @pytest.mark.parametrize("kind", ["normal", "shifted far", "loops"])
    def test_frequencies(self, kind: str, single_root: bool) -> None:
        """On "loops" the random walks are given up, and heads sampled one by one."""
        torch.manual_seed(10)
        scores = SCORES[kind]((2, 5, 5))
        if kind == "loops":
            # Both ways on between two words, so that walks towards a single root do not end either.
            scores[:, 1, 2] += 40
            scores[:, 2, 1] += 40
        mask = prefix_mask([5, 4], 5)
        number = 20000
        samples = nonprojective_sample(scores, mask, number, single_root, torch.Generator().manual_seed(0))
        for row, length in enumerate([5, 4]):
            exact = oracle(scores[row], length, single_root)
            arcs = arcs_from_heads(samples[:, row, :length], torch.double)
            drawn = (arcs.flatten(1) @ exact.vertices.flatten(1).T == length - 1).double().mean(0)
            expected = exact.log_probabilities().exp()
            # 5 standard deviations
            assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / number).sqrt() + 1e-4).all()

    def test_marginals_of_longer_sentences(self) -> None:
        torch.manual_seed(11)
        scores = 2 * torch.randn(2, 13, 13, dtype=torch.double)
        mask = prefix_mask([13, 9], 13)
        samples = nonprojective_sample(scores, mask, 20000, generator=torch.Generator().manual_seed(1))
        expected = nonprojective_marginals(scores, mask)
        drawn = arcs_from_heads(samples, torch.double).mean(0)
        assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / 20000).sqrt() + 1e-4).all()

    def test_generator(self) -> None:
        scores = torch.zeros(40, 9, 9)
        mask = torch.ones(40, 9, dtype=torch.bool)
        first, second = (
            nonprojective_sample(scores, mask, 2, generator=torch.Generator().manual_seed(7))
            for _ in range(2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first[0], first[1])


class TestBatches:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @roots
    def test_padded_is_alone_and_order_does_not_matter(self, single_root: bool, dtype: torch.dtype) -> None:
        torch.manual_seed(12)
        lengths = torch.randint(0, 15, (45,))
        mask = prefix_mask(lengths, 16)
        scale = torch.tensor([1.0, 30.0, 1e4]).repeat(15)[:, None, None]
        scores = torch.randn(45, 16, 16, dtype=dtype) * scale
        permutation = torch.randperm(45)

        def results(s, m):
            s = s.clone().requires_grad_()
            marginals = nonprojective_marginals(s, m, single_root)
            return [
                nonprojective_heads(s, m, single_root),
                nonprojective_log_partition(s, m, single_root),
                marginals,
                torch.autograd.grad((marginals**2).sum(), s)[0],
                *nonprojective_top_k(s, m, 2, single_root),
            ]

        together = results(scores, mask)
        for one, other in zip(together, results(scores[permutation], mask[permutation]), strict=True):
            assert torch.equal(one[permutation], other)
        for row in range(0, 45, 5):
            length = max(1, int(lengths[row]))
            alone = results(scores[row : row + 1, :length, :length], mask[row : row + 1, :length])
            for one, other in zip(together, alone, strict=True):
                one = one[row][tuple(slice(size) for size in other[0].shape)]
                torch.testing.assert_close(
                    one, other[0], atol=1e-13, rtol=1e-6 if dtype == torch.float32 else 1e-13
                )

    def test_threads(self) -> None:
        torch.manual_seed(13)
        scores = torch.randn(70, 13, 13) * 10
        mask = prefix_mask(torch.randint(0, 14, (70,)), 13)
        threads = torch.get_num_threads()
        try:
            outputs = []
            for number in (1, 3):
                torch.set_num_threads(number)
                outputs.append((nonprojective_heads(scores, mask), nonprojective_marginals(scores, mask)))
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 1)])
    def test_nothing_to_parse(self, shape) -> None:
        scores, mask = torch.zeros(*shape, shape[1]), torch.ones(shape, dtype=torch.bool)
        assert nonprojective_heads(scores, mask).tolist() == torch.full(shape, -1).tolist()
        assert nonprojective_log_partition(scores, mask).tolist() == [0] * shape[0]
        assert nonprojective_marginals(scores, mask).shape == scores.shape
        assert nonprojective_sample(scores, mask, 2).shape == (2, *shape)
        assert nonprojective_top_k(scores, mask, 2)[0].shape == (shape[0], 2, shape[1])

    def test_strides_and_inference_mode(self) -> None:
        torch.manual_seed(14)
        scores = torch.randn(6, 6, 5).permute(2, 1, 0)
        mask = torch.ones(5, 6, dtype=torch.bool)
        with torch.inference_mode():
            outputs = nonprojective_heads(scores, mask), nonprojective_marginals(scores, mask)
        assert torch.equal(outputs[0], nonprojective_heads(scores.contiguous(), mask))
        assert torch.equal(outputs[1], nonprojective_marginals(scores.contiguous(), mask))
