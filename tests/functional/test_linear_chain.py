import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spigot_allennlp.functional.linear_chain import (
    chain_argmax,
    chain_log_partition,
    chain_marginals,
    chain_sample,
    chain_top_k,
    parts_from_tags,
)
from spigot_allennlp.functional.sparsemap import active_set, sparsemap_project
from tests import enumeration

INF = float("inf")


def chain_oracle(mask):
    return lambda scores, rows: parts_from_tags(chain_argmax(scores, mask[rows]), scores.size(-1))


def batch(lengths, num_tags, seed, kind="continuous", scale=1.0, forbidden=0.0):
    """Random scores, with rubbish where nothing is legal."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    shape = (len(lengths), width, num_tags, num_tags)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    if kind == "continuous":
        scores = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    else:
        scores = torch.randint(-2, 3, shape, generator=generator).double() * scale
    scores[torch.rand(shape, generator=generator) < forbidden] = -INF
    scores[~mask] = float("nan")
    scores[:, 0, 1:] = 7.0
    return scores, mask


def sentences(scores, mask):
    """Each instance's oracle, scores without padding, and length."""
    for row, length in zip(scores, mask.sum(-1).tolist(), strict=True):
        vertices = enumeration.tag_sequences(length, scores.size(-1))
        yield vertices, row[:length], length


batches = st.builds(
    batch,
    st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(max),
    st.integers(1, 3),
    st.integers(0, 999),
    st.sampled_from(["continuous", "ties"]),
    st.sampled_from([1.0, 1e-2, 1e4]),
)


@settings(max_examples=60, deadline=None)
@given(batches, st.sampled_from([1, 2, 5, 100]))
def test_agrees_with_enumeration(instance, k):
    scores, mask = instance
    before = scores.clone()
    tags = chain_argmax(scores, mask)
    best = parts_from_tags(tags, scores.size(-1))
    log_partition, marginals = chain_log_partition(scores, mask), chain_marginals(scores, mask)
    top_tags, top_scores = chain_top_k(scores, mask, k)
    assert torch.equal(top_tags[:, 0], tags)
    for b, (vertices, alone, length) in enumerate(sentences(scores, mask)):
        oracle = enumeration.Oracle(vertices, alone)
        assert oracle.is_vertex(best[b, :length])
        torch.testing.assert_close(
            (best[b, :length] * alone.nan_to_num()).sum().item(), oracle.best_score(), rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(log_partition[b], oracle.log_partition())
        torch.testing.assert_close(marginals[b, :length], oracle.marginals(), rtol=0, atol=1e-9)
        assert marginals.max() <= 1 + 1e-15
        assert (best[b, length:] == 0).all() and (marginals[b, length:] == 0).all()
        assert (tags[b, length:] == -1).all() and (best[b, :1, 1:] == 0).all()
        torch.testing.assert_close(top_scores[b], oracle.top_scores(k))
        found = top_scores[b] > -INF
        assert found.sum() == min(k, len(vertices))
        assert len({tuple(sequence.tolist()) for sequence in top_tags[b][found]}) == found.sum()
        parts = parts_from_tags(top_tags[b][found], scores.size(-1), torch.float64)[:, :length]
        torch.testing.assert_close((parts * alone).flatten(1).sum(-1), top_scores[b][found])
        assert (top_tags[b][~found] == -1).all()
    torch.testing.assert_close(scores, before, rtol=0, atol=0, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(batches)
def test_projection_is_the_nearest_point(instance):
    scores, mask = instance
    scores = scores.nan_to_num()
    solution = active_set(scores, chain_oracle(mask))
    assert solution.converged.all()
    assert (solution.projection[~mask] == 0).all() and (solution.projection[:, 0, 1:] == 0).all()
    for (vertices, alone, length), projection in zip(sentences(scores, mask), solution.projection, strict=True):
        projection = projection[:length]
        values = (vertices * (alone - projection)).flatten(1).sum(-1)
        assert values.max() - ((alone - projection) * projection).sum() <= 1e-9 * scores.abs().max().clamp(min=1)


def test_forbidden_transitions():
    scores, mask = batch([4, 3, 2, 4, 1], 3, seed=2, forbidden=0.25)
    scores.requires_grad_()
    log_partition, marginals = chain_log_partition(scores, mask), chain_marginals(scores, mask)
    (gradient,) = torch.autograd.grad(log_partition.sum(), scores, retain_graph=True)
    torch.testing.assert_close(gradient, marginals, rtol=0, atol=1e-12)
    (second,) = torch.autograd.grad((marginals * torch.randn_like(marginals)).sum(), scores)
    assert second.isfinite().all() and (second[marginals == 0] == 0).all()
    tags, totals = chain_top_k(scores, mask, 81)
    for b, (vertices, alone, length) in enumerate(sentences(scores.detach(), mask)):
        oracle = enumeration.Oracle(vertices, alone)
        assert len(oracle.vertices) < len(vertices)
        torch.testing.assert_close(marginals[b, :length], oracle.marginals(), rtol=0, atol=1e-12)
        torch.testing.assert_close(totals[b], oracle.top_scores(81))
        assert (marginals[b, :length][alone == -INF] == 0).all()
        samples = parts_from_tags(chain_sample(scores, mask, 50)[:, b], 3, torch.float64)[:, :length]
        assert all(oracle.is_vertex(sample) for sample in samples)


def test_nothing_is_allowed():
    scores, mask = batch([3, 3], 2, seed=0)
    scores[0, 1] = -INF
    scores.requires_grad_()
    log_partition, marginals = chain_log_partition(scores, mask), chain_marginals(scores, mask)
    assert log_partition[0] == -INF and (marginals[0] == 0).all()
    assert log_partition[1].isfinite()
    for output in (log_partition[1:], marginals):
        (gradient,) = torch.autograd.grad(output.sum(), scores, retain_graph=True)
        assert gradient.isfinite().all() and (gradient[0] == 0).all()
    # Still a sequence, with no more forbidden transitions than the one that there is no way around.
    scores.data[0, 0, 0, 1] = scores.data[0, 2, 0] = -INF
    assert chain_argmax(scores, mask)[0, :2].tolist() == [0, 1]
    tags, totals = chain_top_k(scores, mask, 3)
    assert (tags[0] == -1).all() and (totals[0] == -INF).all()
    assert (sparsemap_project(scores, chain_oracle(mask))[0] == 0).all()


def test_gradients():
    scores, mask = batch([3, 0, 2], 2, seed=3)
    scores = scores.nan_to_num().requires_grad_()
    torch.autograd.gradcheck(lambda s: chain_log_partition(s, mask), scores)
    torch.autograd.gradgradcheck(lambda s: chain_log_partition(s, mask), scores)
    torch.autograd.gradcheck(lambda s: chain_marginals(s, mask), scores)
    torch.autograd.gradgradcheck(lambda s: chain_marginals(s, mask), scores)
    torch.autograd.gradcheck(lambda s: sparsemap_project(s * 0.3, chain_oracle(mask)), scores)


def test_samples_follow_the_distribution():
    scores, mask = batch([4, 2, 0], 3, seed=4)
    torch.manual_seed(0)
    samples = chain_sample(scores, mask, 20_000)
    assert samples.shape == (20_000, 3, 4)
    assert ((samples == -1) == ~mask).all()
    frequencies = parts_from_tags(samples, 3, torch.float64).mean(0)
    # Five standard deviations of a mean of 20,000 zeros and ones.
    torch.testing.assert_close(frequencies, chain_marginals(scores, mask), rtol=0, atol=0.018)
    torch.manual_seed(0)
    again = chain_sample(scores, mask, 20_000)
    assert torch.equal(samples, again)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_single_precision(scale):
    scores, mask = batch([60, 33], 4, seed=5, scale=scale)
    single = scores.float()
    for function in (chain_log_partition, chain_marginals):
        output = function(single, mask)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, function(single.double(), mask).float())
    torch.testing.assert_close(chain_marginals(single, mask).sum((2, 3)), mask.float(), rtol=0, atol=1e-5)
    assert torch.equal(chain_argmax(single, mask), chain_argmax(single.double(), mask))


def test_padding_and_inference_mode_change_nothing():
    scores, mask = batch([7, 4], 3, seed=6)
    with torch.inference_mode():
        inferred = chain_marginals(scores, mask)
    marginals, log_partition = chain_marginals(scores, mask), chain_log_partition(scores, mask)
    assert torch.equal(marginals, inferred)
    alone, alone_mask = scores[1:, :4], mask[1:, :4]
    torch.testing.assert_close(chain_marginals(alone, alone_mask), marginals[1:, :4])
    torch.testing.assert_close(chain_log_partition(alone, alone_mask), log_partition[1:])
    assert torch.equal(chain_argmax(alone, alone_mask), chain_argmax(scores, mask)[1:, :4])
    torch.testing.assert_close(
        sparsemap_project(alone, chain_oracle(alone_mask)),
        sparsemap_project(scores.nan_to_num(), chain_oracle(mask))[1:, :4],
    )
