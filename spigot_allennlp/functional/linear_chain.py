"""
Tag sequences (linear-chain models): the maximum, the log-partition function, marginals, samples and the k
best.

Parts are transitions, `(batch, positions, previous tags, tags)`: `scores[b, t, i, j]` scores tag i at t - 1
followed by tag j at t. Nothing precedes position 0: its parts stand in row i = 0, and its other rows are
illegal. `mask` is `(batch, positions)`, true for real tokens, a prefix of each row. Illegal parts are exactly
0 in every output and get exactly no gradient, whatever they hold; a score of `-inf` forbids a transition.
Sums are float64 and logarithms throughout. Time and memory are O(n K^2) for n positions and K tags.

An instance without tokens has one sequence, the empty one. An instance all of whose sequences are forbidden
has a log-partition of -inf and marginals of 0.
"""

import numpy as np
import torch

from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, kernel, parallel_for, to_numpy


def _transitions(tags: torch.Tensor, num_tags: int) -> torch.Tensor:
    """
    `(..., positions)`: the previous tag times `num_tags` plus the tag, with tag 0 before the first; -1 at
    padding.
    """
    previous = torch.nn.functional.pad(tags, (1, 0))[..., :-1]
    return torch.where(tags >= 0, previous * num_tags + tags, -1)


def parts_from_tags(tags: torch.Tensor, num_tags: int, dtype: torch.dtype = torch.float) -> torch.Tensor:
    """
    # Parameters

    tags : `torch.LongTensor`
        `(..., positions)`, -1 at padding.
    num_tags : `int`
        Number of tags.
    dtype : `torch.dtype`, optional (default = `torch.float`)
        Type of the result.

    # Returns

    `torch.Tensor`
        `(..., positions, num_tags, num_tags)`: 1 for each transition of the sequence, else exactly 0.
    """
    transitions = _transitions(tags, num_tags).unsqueeze(-1)
    parts = torch.zeros(*tags.shape, num_tags * num_tags, dtype=dtype, device=tags.device)
    parts.scatter_(-1, transitions.clamp(min=0), (transitions >= 0).to(dtype))
    return parts.unflatten(-1, (num_tags, num_tags))


@kernel
def _best_extensions(best, scores, extended, origins):
    """
    Of the sequences with totals `best[tag, rank]`, extended by `scores[tag]`, the k best. An origin is `tag *
    k + rank`.
    """
    k = len(extended)
    extended[:] = -np.inf
    for tag in range(len(best)):
        for rank in range(k):
            total = best[tag, rank] + scores[tag]
            # Those of one tag come in order: if this one is not among the k best, the next are not.
            if not total > extended[k - 1]:
                break
            place = k - 1
            while place > 0 and total > extended[place - 1]:
                extended[place] = extended[place - 1]
                origins[place] = origins[place - 1]
                place -= 1
            extended[place] = total
            origins[place] = tag * k + rank


@kernel
def _viterbi(scores, lengths, k, tags, totals, start, stop):
    """
    The k best sequences of each instance, best first; among equals the one with the smaller tags, read from
    the end. Those that do not exist are left as they are.
    """
    num_positions, num_tags = scores.shape[1], scores.shape[2]
    best = np.empty((num_positions, num_tags, k))
    origins = np.empty((num_positions, num_tags, k), dtype=np.int64)
    finals = np.empty(k)
    final_origins = np.empty(k, dtype=np.int64)
    for b in range(start, stop):
        length = lengths[b]
        if length == 0:
            totals[b, 0] = 0.0
            continue
        best[0] = -np.inf
        for tag in range(num_tags):
            best[0, tag, 0] = scores[b, 0, 0, tag]
        for position in range(1, length):
            for tag in range(num_tags):
                _best_extensions(
                    best[position - 1],
                    scores[b, position, :, tag],
                    best[position, tag],
                    origins[position, tag],
                )
        _best_extensions(best[length - 1], np.zeros(num_tags), finals, final_origins)
        for rank in range(k):
            totals[b, rank] = finals[rank]
            if finals[rank] == -np.inf:
                break
            origin = final_origins[rank]
            for position in range(length - 1, -1, -1):
                tag = origin // k
                tags[b, rank, position] = tag
                origin = origins[position, tag, origin % k]


def chain_top_k(scores: torch.Tensor, mask: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The k best tag sequences, distinct, best first: the k-best Viterbi algorithm, O(n K^2 k^2) at worst. Not
    differentiable.

    # Parameters

    scores : `torch.Tensor`
        `(batch, positions, tags, tags)`
    mask : `torch.BoolTensor`
        `(batch, positions)`
    k : `int`
        Number of structures.

    # Returns

    `tuple[torch.LongTensor, torch.Tensor]`
        Tags `(batch, k, positions)`, -1 at padding, and scores `(batch, k)`. Where there are fewer than k
        sequences: all tags -1, score -inf.
    """
    values, lengths = to_numpy(scores), to_numpy(mask.sum(-1))
    tags = np.full((len(values), k, values.shape[1]), -1)
    totals = np.full((len(values), k), -np.inf)
    parallel_for(lambda start, stop: _viterbi(values, lengths, k, tags, totals, start, stop), len(values))
    return from_numpy(tags, like=scores), from_numpy(totals, like=scores, dtype=scores.dtype)


def chain_argmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    The best tag sequence: the Viterbi algorithm.

    # Parameters

    scores : `torch.Tensor`
        `(batch, positions, tags, tags)`
    mask : `torch.BoolTensor`
        `(batch, positions)`

    # Returns

    `torch.LongTensor`
        `(batch, positions)`, -1 at padding. Where every sequence has a forbidden transition, one with as few of
        them as possible.
    """
    return chain_top_k(scores.clamp(min=FORBIDDEN), mask, 1)[0].squeeze(1)


def _legal_scores(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    In float64 and finite, since the gradient of `log(exp(-inf) + exp(-inf))` is NaN. At position 0 all rows
    but the first are forbidden, so that it can be treated like any other.
    """
    scores = scores.double().masked_fill(~mask[:, :, None, None], 0.0).clamp(min=FORBIDDEN)
    illegal = torch.zeros(scores.shape[1:3], dtype=torch.bool, device=scores.device)
    illegal[:1, 1:] = True
    return scores.masked_fill(illegal.unsqueeze(-1), FORBIDDEN)


def _forward(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    `(batch, positions + 1, tags)`: before each position, and at the end, the log-sum of all sequences so far
    by their last tag. After an instance's last token it stays as it is.
    """
    sums = [scores.new_zeros(scores.size(0), scores.size(2))]
    for position in range(scores.size(1)):
        extended = (sums[-1].unsqueeze(-1) + scores[:, position]).logsumexp(dim=1)
        sums.append(torch.where(mask[:, position, None], extended, sums[-1]))
    return torch.stack(sums, dim=1)


def _backward(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`(batch, positions, tags)`: the log-sum of all ways to go on after each position, by its tag."""
    sums = [scores.new_zeros(scores.size(0), scores.size(2))]
    for position in range(scores.size(1) - 1, 0, -1):
        extended = (scores[:, position] + sums[-1].unsqueeze(1)).logsumexp(dim=2)
        sums.append(torch.where(mask[:, position, None], extended, sums[-1]))
    return torch.stack(sums[::-1], dim=1)


def chain_log_partition(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    `log sum_y exp <scores, y>` over all tag sequences y: the forward algorithm. Differentiable any number of
    times; the gradient is `chain_marginals`.

    # Parameters

    scores : `torch.Tensor`
        `(batch, positions, tags, tags)`
    mask : `torch.BoolTensor`
        `(batch, positions)`

    # Returns

    `torch.Tensor`
        `(batch,)`
    """
    log_partition = _forward(_legal_scores(scores, mask), mask)[:, -1].logsumexp(dim=-1)
    log_partition = log_partition.masked_fill(log_partition < FORBIDDEN / 2, -float("inf"))
    return log_partition.masked_fill(~mask.any(dim=-1), 0.0).to(scores.dtype)


def chain_marginals(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    The probability of each transition where `p(y)` is proportional to `exp <scores, y>`: the forward-backward
    algorithm. Differentiable any number of times.

    # Parameters

    scores : `torch.Tensor`
        `(batch, positions, tags, tags)`
    mask : `torch.BoolTensor`
        `(batch, positions)`

    # Returns

    `torch.Tensor`
        `(batch, positions, tags, tags)`
    """
    legal_scores = _legal_scores(scores, mask)
    before, after = _forward(legal_scores, mask), _backward(legal_scores, mask)
    through = before[:, :-1].unsqueeze(3) + legal_scores + after.unsqueeze(2)
    # The log-sum of `through` is the log-partition at each position; to compute it there cancels the rounding of
    # large scores, so that each position's transitions sum to 1.
    marginals = through.flatten(2).softmax(dim=-1).view_as(through)
    feasible = before[:, -1].logsumexp(dim=-1) > FORBIDDEN / 2
    exists = mask & feasible.unsqueeze(-1)
    return marginals.masked_fill(~exists[:, :, None, None], 0.0).to(scores.dtype)


def chain_sample(scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
    """
    Independent tag sequences from `p(y)` proportional to `exp <scores, y>`: forwards the sums, backwards the
    draws, by torch's global random state.

    # Parameters

    scores : `torch.Tensor`
        `(batch, positions, tags, tags)`
    mask : `torch.BoolTensor`
        `(batch, positions)`
    num_samples : `int`
        Number of samples.

    # Returns

    `torch.LongTensor`
        `(num_samples, batch, positions)`, -1 at padding.
    """
    legal_scores = _legal_scores(scores.detach(), mask)
    before = _forward(legal_scores, mask)
    batch_size, num_positions, num_tags, _ = scores.shape
    rows = torch.arange(batch_size, device=scores.device)
    # What follows: nothing yet, for each sample; hence no preference.
    following = legal_scores.new_zeros(num_samples, batch_size, num_tags)
    samples = []
    for position in range(num_positions - 1, -1, -1):
        probabilities = (before[:, position + 1] + following).softmax(dim=-1)
        tags = torch.multinomial(probabilities.flatten(0, 1), 1)
        tags = tags.view(num_samples, batch_size)
        samples.append(tags.masked_fill(~mask[:, position], -1))
        # shape: (num_samples, batch, tags)
        following = legal_scores[rows, position, :, tags].masked_fill(~mask[:, position, None], 0.0)
    return torch.stack(samples[::-1], dim=-1)
