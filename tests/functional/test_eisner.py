import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.functional.eisner import (
    projective_heads,
    projective_log_partition,
    projective_marginals,
    projective_sample,
    projective_top_k,
)
from spigot_allennlp.functional.trees import arcs_from_heads
from tests.enumeration import Oracle, has_one_root, is_projective, is_tree, trees

NOTHING = -float("inf")
roots = pytest.mark.parametrize("single_root", [True, False])


def oracle(scores: torch.Tensor, tokens: int, single_root: bool) -> Oracle:
    """For the scores of one sentence, padded or not."""
    return Oracle(trees(tokens, True, single_root), scores[:tokens, :tokens])


def prefix_mask(lengths, tokens: int) -> torch.Tensor:
    return torch.arange(tokens) < torch.as_tensor(lengths)[:, None]


def legal_arcs(mask: torch.Tensor) -> torch.Tensor:
    arcs = mask[:, :, None] & mask[:, None, :]
    arcs[:, 0] = False
    return arcs & ~torch.eye(mask.size(1), dtype=torch.bool)


@st.composite
def batches(draw):
    """Ragged batches of up to 4 words, from harmless to extreme; NaN wherever there is no arc."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=20))
    tokens = max(1, max(lengths)) + draw(st.integers(0, 2))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    shape = (len(lengths), tokens, tokens)
    scores = {
        "normal": lambda: torch.randn(shape),
        "equal": lambda: torch.zeros(shape),
        "ties": lambda: torch.randint(0, 2, shape).float(),
        "large": lambda: 1e4 * torch.randn(shape),
        "large ties": lambda: 1e4 * torch.randint(0, 2, shape).float(),
        "shifted rows": lambda: torch.randn(shape) + 1e4 * torch.randn(shape[:2]).unsqueeze(-1),
        "far apart": lambda: 300 * torch.randint(-3, 4, shape).float(),
    }[draw(st.sampled_from("normal|equal|ties|large|large ties|shifted rows|far apart".split("|")))]()
    scores = scores.to(draw(st.sampled_from([torch.float32, torch.float64])))
    if draw(st.booleans()):
        # A chain of arcs stays, so that there is a tree.
        forbidden = torch.rand(shape) < 0.4
        forbidden.diagonal(-1, 1, 2)[:] = False
        scores = scores.masked_fill(forbidden, NOTHING)
    mask = prefix_mask(lengths, tokens)
    return scores.masked_fill(~legal_arcs(mask), float("nan")), mask, draw(st.booleans())


class TestAgainstEnumeration:
    @settings(max_examples=150, deadline=None)
    @given(batches())
    def test_everything(self, batch) -> None:
        scores, mask, single_root = batch
        before = scores.clone()
        tolerance = {"atol": 1e-9, "rtol": 1e-9}
        if scores.dtype == torch.float32:
            tolerance = {"atol": 1e-5, "rtol": 1e-6}
        scores.requires_grad_()
        heads = projective_heads(scores, mask, single_root)
        log_partition = projective_log_partition(scores, mask, single_root)
        marginals = projective_marginals(scores, mask, single_root)
        direction = torch.randn(scores.shape, dtype=scores.dtype)
        (product,) = torch.autograd.grad(marginals, scores, direction)
        (gradient,) = torch.autograd.grad(log_partition.sum(), scores)
        best_heads, best_scores = projective_top_k(scores, mask, 4, single_root)
        samples = projective_sample(scores, mask, 3, single_root)
        scores = scores.detach()
        assert torch.equal(scores.nan_to_num(0.125), before.nan_to_num(0.125))
        assert marginals.dtype == log_partition.dtype == best_scores.dtype == scores.dtype
        assert torch.equal(gradient, marginals)
        illegal = ~legal_arcs(mask)
        assert not marginals[illegal].any() and not product[illegal].any()
        assert not marginals[scores == NOTHING].any() and not product[scores == NOTHING].any()
        words = mask.clone()
        words[:, 0] = False
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
            best = exact.best_score()
            scale = scores[row][inner][exact._used.view(length, length)].abs()
            scale = scale[scale.isfinite()].max().item()
            # What the rounding of sums costs in float32, where argmax works.
            close = 1e-9 * (1 + scale) if scores.dtype == torch.float64 else 2e-6 * (1 + scale)
            arcs = arcs_from_heads(heads[row, :length], torch.double)
            assert exact.is_vertex(arcs)
            assert (arcs * scores[row][inner].double().nan_to_num(0, 0, 0)).sum() >= best - close
            torch.testing.assert_close(log_partition[row].double(), exact.log_partition(), **tolerance)
            torch.testing.assert_close(marginals[row][inner].double(), exact.marginals(), **tolerance)
            (exact_product,) = torch.autograd.grad(
                (exact.marginals() * direction[row][inner].double()).sum(), exact_scores
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
                total = (arcs * scores[row][inner].double().nan_to_num(0, 0, 0)).sum()
                torch.testing.assert_close(score.double(), total, **tolerance)
            assert (best_heads[row, ~found] == -1).all()
            for sample in samples[:, row, :length]:
                assert exact.is_vertex(arcs_from_heads(sample, torch.double))

    @roots
    def test_five_words(self, single_root: bool) -> None:
        torch.manual_seed(0)
        scores = 2 * torch.randn(3, 6, 6, dtype=torch.double)
        mask = torch.ones(3, 6, dtype=torch.bool)
        oracles = [oracle(row, 6, single_root) for row in scores]
        assert torch.equal(
            arcs_from_heads(projective_heads(scores, mask, single_root), torch.double),
            torch.stack([exact.argmax() for exact in oracles]),
        )
        torch.testing.assert_close(
            projective_log_partition(scores, mask, single_root),
            torch.stack([exact.log_partition() for exact in oracles]),
        )
        torch.testing.assert_close(
            projective_marginals(scores, mask, single_root),
            torch.stack([exact.marginals() for exact in oracles]),
            atol=1e-12,
            rtol=1e-10,
        )

    @roots
    def test_all_trees_in_order(self, single_root: bool) -> None:
        torch.manual_seed(1)
        number = len(trees(5, True, single_root))
        scores = torch.randn(1, 5, 5, dtype=torch.double)
        mask = torch.ones(1, 5, dtype=torch.bool)
        heads, totals = projective_top_k(scores, mask, number + 3, single_root)
        torch.testing.assert_close(totals[0], oracle(scores[0], 5, single_root).top_scores(number + 3))
        assert len({tuple(tree.tolist()) for tree in heads[0, :number]}) == number
        assert (heads[0, number:] == -1).all()


class TestDerivatives:
    @roots
    def test_gradcheck(self, single_root: bool) -> None:
        torch.manual_seed(2)
        scores = torch.randn(3, 5, 5, dtype=torch.double, requires_grad=True)
        mask = prefix_mask([5, 3, 4], 5)
        assert torch.autograd.gradcheck(lambda s: projective_marginals(s, mask, single_root), scores)
        assert torch.autograd.gradcheck(lambda s: projective_log_partition(s, mask, single_root), scores)
        assert torch.autograd.gradgradcheck(lambda s: projective_log_partition(s, mask, single_root), scores)

    @pytest.mark.parametrize("scale", [1e-30, 0.25, 65536.0, 1e30])
    def test_linear_at_any_scale(self, scale: float) -> None:
        torch.manual_seed(3)
        scores = torch.randn(4, 12, 12, requires_grad=True)
        mask = torch.ones(4, 12, dtype=torch.bool)
        marginals = projective_marginals(scores, mask)
        direction = torch.randn(scores.shape)
        (one,) = torch.autograd.grad(marginals, scores, direction, retain_graph=True)
        (scaled,) = torch.autograd.grad(marginals, scores, scale * direction)
        torch.testing.assert_close(scaled / scale, one, atol=1e-6, rtol=1e-5)

    def test_constant_direction_has_no_effect(self) -> None:
        torch.manual_seed(4)
        scores = torch.randn(2, 20, 20, requires_grad=True)
        mask = torch.ones(2, 20, dtype=torch.bool)
        marginals = projective_marginals(scores, mask)
        direction = 1e3 * torch.randn(2, 20, 1).expand(2, 20, 20)
        (product,) = torch.autograd.grad(marginals, scores, direction)
        assert product.abs().max() < 1e-2


def infeasible(single_root: bool) -> torch.Tensor:
    """Word 2 has no head; then words that can only hang on each other; then, for a single root, two that need ROOT."""
    scores = torch.zeros(3, 4, 4)
    scores[0, 2] = NOTHING
    scores[1, 1, [0, 2]] = NOTHING
    scores[1, 3, [0, 2]] = NOTHING
    scores[2, 1, 1:] = NOTHING
    scores[2, 3, 1:] = NOTHING
    return scores if single_root else scores[:2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@roots
def test_no_tree_at_all(single_root: bool, dtype: torch.dtype) -> None:
    scores = infeasible(single_root).to(dtype).requires_grad_()
    mask = torch.ones(len(scores), 4, dtype=torch.bool)
    log_partition = projective_log_partition(scores, mask, single_root)
    assert (log_partition == NOTHING).all()
    marginals = projective_marginals(scores, mask, single_root)
    assert not marginals.any()
    (gradient,) = torch.autograd.grad(marginals, scores, torch.randn(scores.shape, dtype=dtype))
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(log_partition.sum(), scores)
    assert not gradient.any()
    heads, totals = projective_top_k(scores, mask, 2, single_root)
    assert (heads == -1).all() and (totals == NOTHING).all()
    for output in (
        projective_heads(scores, mask, single_root),
        *projective_sample(scores, mask, 2, single_root),
    ):
        for row in output.tolist():
            assert is_tree(row[1:]) and is_projective(row[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_stays_visible_and_alone(dtype: torch.dtype) -> None:
    scores = torch.zeros(3, 5, 5, dtype=dtype)
    scores[1, 2, 3] = float("nan")
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert projective_log_partition(scores, mask).isnan().tolist() == [False, True, False]
    assert projective_marginals(scores, mask).isnan().flatten(1).any(1).tolist() == [False, True, False]


class TestSamples:
    @roots
    def test_frequencies(self, single_root: bool) -> None:
        torch.manual_seed(5)
        scores = torch.randn(2, 5, 5)
        scores[1] += 1e3 * torch.randn(5, 1)
        mask = prefix_mask([5, 4], 5)
        number = 20000
        samples = projective_sample(scores, mask, number, single_root, torch.Generator().manual_seed(0))
        for row, length in enumerate([5, 4]):
            exact = oracle(scores[row], length, single_root)
            arcs = arcs_from_heads(samples[:, row, :length], torch.double)
            drawn = (arcs.flatten(1) @ exact.vertices.flatten(1).T == length - 1).double().mean(0)
            expected = exact.log_probabilities().exp()
            # 5 standard deviations
            assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / number).sqrt() + 1e-4).all()

    def test_generator(self) -> None:
        scores = torch.zeros(40, 9, 9)
        mask = torch.ones(40, 9, dtype=torch.bool)
        first, second = (
            projective_sample(scores, mask, 2, generator=torch.Generator().manual_seed(7)) for _ in range(2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first[0], first[1])


class TestBatches:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @roots
    def test_padded_is_alone_and_order_does_not_matter(self, single_root: bool, dtype: torch.dtype) -> None:
        torch.manual_seed(6)
        lengths = torch.randint(0, 15, (45,))
        mask = prefix_mask(lengths, 16)
        scores = (
            torch.randn(45, 16, 16, dtype=dtype) * torch.tensor([1.0, 30.0, 1e4]).repeat(15)[:, None, None]
        )
        permutation = torch.randperm(45)

        def results(s, m):
            return [
                projective_heads(s, m, single_root),
                projective_log_partition(s, m, single_root),
                projective_marginals(s, m, single_root),
                *projective_top_k(s, m, 2, single_root),
            ]

        together = results(scores, mask)
        for one, other in zip(together, results(scores[permutation], mask[permutation]), strict=True):
            assert torch.equal(one[permutation], other)
        for row in range(0, 45, 5):
            length = max(1, int(lengths[row]))
            alone = results(scores[row : row + 1, :length, :length], mask[row : row + 1, :length])
            for one, other in zip(together, alone, strict=True):
                assert torch.equal(one[row][tuple(slice(size) for size in other[0].shape)], other[0])

    def test_threads(self) -> None:
        torch.manual_seed(7)
        scores = torch.randn(70, 13, 13) * 10
        mask = prefix_mask(torch.randint(0, 14, (70,)), 13)
        threads = torch.get_num_threads()
        try:
            outputs = []
            for number in (1, 3):
                torch.set_num_threads(number)
                outputs.append((projective_heads(scores, mask), projective_marginals(scores, mask)))
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 1)])
    def test_nothing_to_parse(self, shape) -> None:
        scores, mask = torch.zeros(*shape, shape[1]), torch.ones(shape, dtype=torch.bool)
        assert projective_heads(scores, mask).tolist() == torch.full(shape, -1).tolist()
        assert projective_log_partition(scores, mask).tolist() == [0] * shape[0]
        assert projective_marginals(scores, mask).shape == scores.shape
        assert projective_sample(scores, mask, 2).shape == (2, *shape)
        assert projective_top_k(scores, mask, 2)[0].shape == (shape[0], 2, shape[1])

    def test_strides_and_inference_mode(self) -> None:
        torch.manual_seed(8)
        scores = torch.randn(6, 6, 5).permute(2, 1, 0)
        mask = torch.ones(5, 6, dtype=torch.bool)
        with torch.inference_mode():
            outputs = projective_heads(scores, mask), projective_marginals(scores, mask)
        assert torch.equal(outputs[0], projective_heads(scores.contiguous(), mask))
        assert torch.equal(outputs[1], projective_marginals(scores.contiguous(), mask))


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
        (product,) = torch.autograd.grad(
            projective_marginals(scores, mask), scores, torch.randn(scores.shape)
        )
        assert product.isfinite().all() and product.sum(-1).abs().max() < 1e-3

    def test_confident_scores_over_a_hopeless_range(self) -> None:
        """The best tree stands out, and most charts' cells are far below what floating point can hold."""
        torch.manual_seed(11)
        heads = projective_heads(torch.randn(1, 61, 61), mask := torch.ones(1, 61, dtype=torch.bool))
        scores = 1e3 * (arcs_from_heads(heads) + 0.01 * torch.randn(1, 61, 61))
        torch.testing.assert_close(
            projective_marginals(scores, mask), arcs_from_heads(heads), atol=1e-6, rtol=0
        )
