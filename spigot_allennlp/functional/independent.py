"""
Independent choices: each row takes exactly one of its options, `(batch, rows, options)`.

The building block of every structure that decomposes: a categorical variable (one row), a head for each word, a label
or none for each arc. `legal` is boolean, of the scores' shape; a row without a legal option takes none: it contributes
nothing and its parts are exactly 0. A score of `-inf` forbids an option.
"""

from typing import Tuple

import torch


def _log_normalizer(scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    if not scores.size(-1):
        return scores.sum(-1)
    # A row that is empty sums over one made-up option of score 0, so that it adds 0 and no gradient is NaN.
    empty = ~legal.any(dim=-1, keepdim=True)
    return scores.masked_fill(~legal, -torch.inf).masked_fill(empty, 0.0).logsumexp(-1) - torch.where(
        empty.squeeze(-1), scores.new_full((), scores.size(-1)).log(), 0.0
    )


def log_partition(scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    """
    `sum_rows log sum_options exp(s)`: `(batch, rows, options)` to `(batch,)`.
    """
    return _log_normalizer(scores, legal).sum(-1)


def marginals(scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    """
    The softmax of each row over its legal options, exactly 0 elsewhere.
    """
    empty = ~legal.any(dim=-1, keepdim=True)
    return scores.masked_fill(~legal, -torch.inf).masked_fill(empty, 0.0).softmax(-1).masked_fill(~legal, 0.0)


def argmax(scores: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    """
    The best option of each row as 0/1 parts; the first of equals.
    """
    best = scores.masked_fill(~legal, -torch.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(scores).scatter_(-1, best, 1.0).masked_fill(~legal, 0.0)


def sample(scores: torch.Tensor, legal: torch.Tensor, num_samples: int) -> torch.Tensor:
    """
    Independent draws from each row's softmax: `(num_samples, batch, rows, options)`, 0/1.
    """
    # In float64: cumulative sums in single precision would bias options of small probability.
    probabilities = marginals(scores.double(), legal)
    empty = ~legal.any(dim=-1)
    probabilities[..., 0].masked_fill_(empty, 1.0)
    draws = torch.multinomial(probabilities.flatten(0, -2), num_samples, replacement=True)
    draws = draws.t().reshape(num_samples, *scores.shape[:-1], 1)
    return scores.new_zeros(num_samples, *scores.shape).scatter_(-1, draws, 1.0).masked_fill(~legal, 0.0)


def top_k(scores: torch.Tensor, legal: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The `k` best joint choices.

    Only the `k - 1` rows whose best and second-best options are closest can deviate from their best option in any
    of the `k` best, so that only those are merged, one after the other, into a beam of `k`.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor]`
        Option of each row, `(batch, k, rows)`, and total scores `(batch, k)` in descending order; where fewer than
        `k` joint choices exist, score `-inf`. Rows without options say 0.
    """
    batch, num_rows, num_options = scores.shape
    empty = ~legal.any(dim=-1, keepdim=True)
    masked = scores.masked_fill(~legal, -torch.inf)
    # An empty row has one made-up option of score 0.
    masked[..., :1] = masked[..., :1].masked_fill(empty, 0.0)

    # shape: (batch, rows, min(k, options))
    option_scores, options = masked.topk(min(k, num_options), dim=-1)
    totals = scores.new_full((batch, k), -torch.inf)
    totals[:, 0] = option_scores[..., 0].sum(-1)
    choices = options[..., 0].unsqueeze(1).repeat(1, k, 1)
    if option_scores.size(-1) == 1:
        return choices, totals

    gaps = option_scores[..., :1] - option_scores
    gaps = torch.where(option_scores.isneginf(), torch.inf, gaps)
    _, deviating = gaps[..., 1].topk(min(k - 1, num_rows), dim=-1, largest=False)
    for row in deviating.unbind(-1):
        index = row.view(batch, 1, 1).expand(-1, 1, options.size(-1))
        # shape: (batch, k, options kept)
        candidates = totals.unsqueeze(-1) - gaps.gather(1, index)
        totals, flat = candidates.flatten(1).topk(k, dim=-1)
        beam, option = flat // options.size(-1), flat % options.size(-1)
        choices = choices.gather(1, beam.unsqueeze(-1).expand(-1, -1, num_rows))
        new_option = options.gather(1, index).squeeze(1).gather(-1, option)
        choices = choices.scatter(-1, row.view(batch, 1, 1).expand(-1, k, 1), new_option.unsqueeze(-1))
    return choices, totals
