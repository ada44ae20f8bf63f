from typing import Tuple

import torch

from spigot_allennlp.structures import LatentStructure


@LatentStructure.register("span")
class Span(LatentStructure):
    """
    One contiguous span of at least one token. Parts are `(batch, tokens)`: 1 for the tokens inside. `mask` is
    `(batch, tokens)`, true for real tokens; there is no ROOT.

    All n (n + 1) / 2 spans are enumerated, so everything is O(n^3) time and memory.
    """

    dimensions = ("batch", "tokens")

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mask

    def _check_mask(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._check_token_mask(mask, tuple(scores.shape))

    @staticmethod
    def _spans(scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """All spans, as boolean parts `(spans, tokens)`, and the score of each, `(batch, spans)`."""
        length = mask.size(1)
        first, last = torch.triu_indices(length, length, device=mask.device)
        position = torch.arange(length, device=mask.device)
        inside = (first.unsqueeze(1) <= position) & (position <= last.unsqueeze(1))
        # Not a matrix product: a score of -inf times 0 is NaN.
        totals = torch.where(inside, scores.unsqueeze(1), 0.0).sum(-1).masked_fill(~mask[:, last], -torch.inf)
        # A row that is all padding has one structure, the empty one.
        empty = torch.zeros_like(totals[:, :1]).masked_fill(mask.any(-1, keepdim=True), -torch.inf)
        return torch.nn.functional.pad(inside, (0, 0, 0, 1)), torch.cat([totals, empty], dim=1)

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        inside, totals = self._spans(scores, mask)
        return inside[totals.argmax(-1)].to(scores.dtype)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # The marginals, its gradient, and entropy and log_prob follow in the base class.
        return self._spans(scores, mask)[1].logsumexp(-1)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        inside, totals = self._spans(scores.double(), mask)
        draws = torch.multinomial(totals.softmax(-1), num_samples, replacement=True)
        return inside[draws.t()].to(scores.dtype)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        inside, totals = self._spans(scores, mask)
        # Where there are fewer: zeros, of score -inf.
        best, spans = torch.nn.functional.pad(totals, (0, k), value=-torch.inf).topk(k, dim=-1)
        nothing = len(inside) - 1
        return inside[spans.masked_fill(best.isneginf(), nothing)].to(scores.dtype), best
