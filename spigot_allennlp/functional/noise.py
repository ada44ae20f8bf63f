"""
Noise on scores, and samples that depend on each other.
"""

from typing import Tuple

import torch

from spigot_allennlp.functional import independent


def gumbel(scores: torch.Tensor) -> torch.Tensor:
    """
    Independent standard Gumbel noise in the shape and type of `scores`.
    """
    exponential = torch.empty_like(scores, dtype=torch.promote_types(scores.dtype, torch.float)).exponential_()
    # An exponential draw may round to 0, whose logarithm is infinite.
    return -exponential.clamp_(min=torch.finfo(exponential.dtype).tiny).log_().to(scores.dtype)


def sum_of_gamma(scores: torch.Tensor, num_selected: torch.Tensor, num_terms: int = 10) -> torch.Tensor:
    """
    Noise whose sum over the `k` selected parts of a structure is approximately a Gumbel variable:
    `(sum_{i=1..terms} Gamma(1/k, scale k/i) - log terms) / k` (Niepert et al. 2021, section 4.2).

    # Parameters

    scores : `torch.Tensor`
        `(batch, ...)`.
    num_selected : `torch.Tensor`
        `(batch,)`, `k` of each instance.
    """
    k = num_selected.clamp(min=1).to(torch.promote_types(scores.dtype, torch.float))
    k = k.view(-1, *[1] * (scores.dim() - 1)).expand(scores.shape)
    noise = sum(torch.distributions.Gamma(1.0 / k, i / k).sample() for i in range(1, num_terms + 1))
    return ((noise - torch.tensor(float(num_terms)).log()) / k).to(scores.dtype)


# After so many rounds two equally likely options agree with a probability of 2^-20.
_ROUNDS = 20


def antithetic_pairs(probabilities: torch.Tensor, num_pairs: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Pairs of choices `(a, b)` that differ more often than independent ones, each distributed as `p` by itself. With
    their joint distribution `q` and `w(a, b) = p(a) p(b) / q(a, b)`, the mean of

        1/2 w(a, b) (L(a) - L(b)) d (log p(a) - log p(b))

    is the gradient of `E_p[L]`. Both are first drawn independently. They agree in proportion to `p^2`; where they do,
    both are drawn again from that distribution, which leaves the distribution of each alone unchanged, and so on. All
    `w` are at most 1, so that for a single row the variance is at most the variance of two independent samples, each
    the other's baseline. For two options this tends to the antithetic pair of DisARM (Dong et al. 2020), with `w = max
    p`.

    # Parameters

    probabilities : `torch.Tensor`
        `(batch, ..., options)`: rows that sum to 1, or to 0 where there is nothing to choose.
    num_pairs : `int`
        Number of pairs.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor, torch.Tensor]`
        `a` and `b`, 0/1 `(num_pairs, batch, ..., options)`, and `w`, `(num_pairs, batch, ...)`, 0 where they agree.
    """
    # For each round: the distribution that both are drawn from, and the probability that it takes place.
    distribution = probabilities.double()
    reached = torch.ones_like(distribution[..., :1])
    rounds, weights = [distribution], [reached]
    for _ in range(_ROUNDS - 1):
        squares = distribution * distribution
        agreement = squares.sum(-1, keepdim=True)
        distribution, reached = squares / agreement.clamp(min=1e-300), reached * agreement
        rounds.append(distribution)
        weights.append(reached)
    # shape: (rounds, batch, ..., options)
    stacked = torch.stack(rounds)
    drawn = independent.sample(stacked.log(), stacked > 0, 2 * num_pairs)
    first, second = drawn[:num_pairs], drawn[num_pairs:]
    # The round that ends it, which is the last one where they still agree.
    differ = (first != second).any(-1)
    last = torch.where(differ.any(1), differ.int().argmax(1), _ROUNDS - 1)
    index = last.unsqueeze(1).unsqueeze(-1).expand_as(first[:, :1])
    first, second = first.gather(1, index).squeeze(1), second.gather(1, index).squeeze(1)

    def likelihood(choices: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
        return (choices * distribution).sum(-1)

    joint = sum(
        weight.squeeze(-1) * likelihood(first, distribution) * likelihood(second, distribution)
        for distribution, weight in zip(rounds, weights)
    )
    independently = likelihood(first, rounds[0]) * likelihood(second, rounds[0])
    ratio = torch.where((first != second).any(-1), independently / joint.clamp(min=1e-300), 0.0)
    return tuple(tensor.to(probabilities.dtype) for tensor in (first, second, ratio))
