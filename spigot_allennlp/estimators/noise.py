"""
Noise on scores.
"""

import torch


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
