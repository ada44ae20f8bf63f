"""
Each row takes any subset of at most `limit` of its options: `(batch, rows, options)`.

What a bounded arc graph is made of. `legal` is boolean, of the scores' shape; a score of `-inf` forbids an option. The
recurrences run over the options and are vectorized over everything else; a state is the number of options taken so
far. For any subset, without a limit, options are independent and `spigot_allennlp.functional.independent` serves.
"""

from typing import List, Tuple

import torch

from spigot_allennlp.functional import independent
from spigot_allennlp.functional.runtime import FORBIDDEN


def _prefix_log_partitions(scores: torch.Tensor, legal: torch.Tensor, limit: int) -> List[torch.Tensor]:
    """`(batch, rows, limit + 1)` before the first option, after it, after the second, ..."""
    # Finite, since the gradient of logsumexp over nothing but -inf is NaN.
    scores = scores.masked_fill(~legal, FORBIDDEN).clamp(min=FORBIDDEN)
    start = scores.new_full((*scores.shape[:-1], limit + 1), FORBIDDEN)
    start[..., 0] = 0.0
    prefixes = [start]
    for option_scores in scores.unbind(-1):
        previous = prefixes[-1]
        # Not logaddexp, whose second derivative is NaN for forbidden options.
        taken = torch.stack([previous[..., 1:], previous[..., :-1] + option_scores.unsqueeze(-1)]).logsumexp(0)
        prefixes.append(torch.cat([previous[..., :1], taken], dim=-1))
    return prefixes


def log_partition(scores: torch.Tensor, legal: torch.Tensor, limit: int) -> torch.Tensor:
    """
    `sum_rows log sum_{|A| <= limit} exp sum_{a in A} s_a` (elementary symmetric polynomials): `(batch,)`.
    """
    return _prefix_log_partitions(scores, legal, limit)[-1].logsumexp(-1).sum(-1)


def argmax(scores: torch.Tensor, legal: torch.Tensor, limit: int) -> torch.Tensor:
    """
    The `limit` best options of each row, as far as their score is positive, as 0/1 parts.
    """
    positive = scores.masked_fill(~legal, -torch.inf).clamp(min=0.0)
    best_scores, best = positive.topk(min(limit, scores.size(-1)), dim=-1)
    return torch.zeros_like(scores).scatter_(-1, best, (best_scores > 0).to(scores.dtype))


def sample(scores: torch.Tensor, legal: torch.Tensor, limit: int, num_samples: int) -> torch.Tensor:
    """
    Exact draws, `(num_samples, batch, rows, options)`, 0/1: the recurrence of `log_partition` run backwards.
    """
    scores64 = scores.double().masked_fill(~legal, FORBIDDEN).clamp(min=FORBIDDEN)
    prefixes = _prefix_log_partitions(scores64, legal, limit)
    # shape: (num_samples, batch, rows)
    taken = (
        torch.multinomial(prefixes[-1].softmax(-1).flatten(0, -2), num_samples, replacement=True)
        .t()
        .reshape(num_samples, *scores.shape[:-1])
    )
    parts = scores.new_zeros(num_samples, *scores.shape)
    for option in reversed(range(scores.size(-1))):
        index = taken.unsqueeze(-1)
        total = prefixes[option + 1].expand(num_samples, -1, -1, -1).gather(-1, index).squeeze(-1)
        fewer = prefixes[option].expand(num_samples, -1, -1, -1).gather(-1, (index - 1).clamp(min=0)).squeeze(-1)
        probability = torch.where(taken > 0, (fewer + scores64[..., option] - total).exp(), 0.0)
        take = torch.rand_like(probability) < probability
        parts[..., option] = take.to(scores.dtype)
        taken = taken - take.long()
    return parts


def top_k(scores: torch.Tensor, legal: torch.Tensor, limit: int, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The `k` best joint choices: 0/1 parts `(batch, k, rows, options)` and scores `(batch, k)`, best first; where fewer
    exist, score `-inf` and zeros.
    """
    batch, num_rows, num_options = scores.shape
    scores = scores.masked_fill(~legal, -torch.inf)
    # The k best subsets of each row by their number of options.
    # shape: (batch, rows, limit + 1, k), and with the options' membership after it
    totals = scores.new_full((batch, num_rows, limit + 1, k), -torch.inf)
    totals[:, :, 0, 0] = 0.0
    members = torch.zeros(*totals.shape, num_options, dtype=torch.bool, device=scores.device)
    for option in range(num_options):
        extended = torch.full_like(totals, -torch.inf)
        extended[:, :, 1:] = totals[:, :, :-1] + scores[:, :, option].view(batch, num_rows, 1, 1)
        with_option = torch.zeros_like(members)
        with_option[:, :, 1:] = members[:, :, :-1]
        with_option[..., option] = True
        totals, kept = torch.cat([totals, extended], dim=-1).topk(k, dim=-1)
        members = torch.cat([members, with_option], dim=-2).gather(
            -2, kept.unsqueeze(-1).expand(*kept.shape, num_options)
        )
    row_totals, kept = totals.flatten(2).topk(k, dim=-1)
    row_members = members.flatten(2, 3).gather(2, kept.unsqueeze(-1).expand(*kept.shape, num_options))

    # shape: (batch, k, rows)
    choices, best = independent.top_k(row_totals, ~row_totals.isneginf(), k)
    index = choices.transpose(1, 2).unsqueeze(-1).expand(-1, -1, -1, num_options)
    parts = row_members.gather(2, index).transpose(1, 2)
    return (parts & ~best.isneginf().view(batch, k, 1, 1)).to(scores.dtype), best
