"""
What the kernels over projective trees compute, as torch operations on all sentences and all spans of one width at
once: for scores that lie on a GPU. Used where `routes.py` says so; runs on any device.

The recurrences are the kernels'. Spans are stored such that every sum over `r` or `m` is a sum over the
rows of two rectangular slices, without copies. With T tokens, in charts `(3, ..., T, T)`:

    first[0, w - 1, i]  the incomplete span i -> i + w        last[0, T - 1 - w, j]  the complete span j - w -> j
    first[1, w, i]      the complete span i + w -> i          last[1, T - w, j]      the incomplete span j -> j - w
    first[2, w, i]      the complete span i -> i + w          last[2, T - 1 - w, j]  the complete span j -> j - w

so that for the spans `[i, i + w]`, with rows `x < w` and all i at once,

    joined           = sum over x of  first[2, x, i] + last[2, T - w + x, i + w]      split at r = i + x
    complete, right  = sum over x of  first[0, x, i] + last[0, T - w + x, i + w]      m = i + x + 1
    complete, left   = sum over x of  first[1, x, i] + last[1, T - w + x, i + w]      m = i + x

where "+" multiplies (numbers are logarithms) and the sum is a maximum or a log-sum.
"""

from typing import Callable, NamedTuple, Optional, Tuple

import torch

from spigot_allennlp.functional.runtime import FORBIDDEN
from spigot_allennlp.functional.trees import legal_arcs


class _Charts(NamedTuple):
    first: torch.Tensor  # (3, components, batch, T, T)
    last: torch.Tensor  # (3, components, batch, T, T)
    joined: torch.Tensor  # (components, batch, T, T), by width and first token


def _shifted_scores(scores: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    Scores less the highest of each word, which changes no tree's rank or probability (see `subtract_maxima`), with
    `FORBIDDEN` where there is no arc; and what was subtracted, `(batch, tokens)`.
    """
    scores = scores.detach().masked_fill(~legal_arcs(mask), FORBIDDEN).clamp(min=FORBIDDEN)
    highest = scores.amax(-1)
    highest = torch.where(highest > FORBIDDEN / 2, highest, 0.0)
    return (scores - highest.unsqueeze(-1)).clamp(min=FORBIDDEN), highest


def _by_width(arcs: torch.Tensor) -> torch.Tensor:
    """
    `(..., dependents, heads)` to `(2, ..., width, first token)`: arcs to the right, `i -> i + w`, and to the left. What
    stands where `i + w` is not a token is never read.
    """
    tokens = arcs.size(-1)
    position = torch.arange(tokens, device=arcs.device)
    end = (position.unsqueeze(1) + position).clamp(max=tokens - 1)
    start = position.expand_as(end)
    return torch.stack([arcs[..., end, start], arcs[..., start, end]])


def _by_dependent(spans: torch.Tensor) -> torch.Tensor:
    """The inverse of `_by_width`: `(..., dependents, heads)`."""
    position = torch.arange(spans.size(-1), device=spans.device)
    dependent, head = position.unsqueeze(1), position
    low, high = torch.minimum(dependent, head), torch.maximum(dependent, head)
    return torch.where(head < dependent, spans[0][..., high - low, low], spans[1][..., high - low, low])


def _inside(arcs: torch.Tensor, single_root: bool, add_up: Callable[[torch.Tensor, int], torch.Tensor]) -> _Charts:
    """
    # Parameters

    arcs : `torch.Tensor`
        `(2, components, batch, T, T)`, as of `_by_width`.
    single_root : `bool`
        Whether exactly one word hangs on ROOT.
    add_up : `Callable[[Tensor, int], Tensor]`
        Function that sums `(..., components, batch, rows, spans)` over the rows, given the spans' width.
    """
    tokens = arcs.size(-1)
    first, last = (arcs.new_empty(3, *arcs.shape[1:]) for _ in range(2))
    joined = arcs.new_empty(arcs.shape[1:])
    # One token governs nothing.
    first[1:, ..., 0, :] = 0.0
    last[::2, ..., -1, :] = 0.0
    for width in range(1, tokens):
        count = tokens - width
        rows_first, rows_last = first[..., :width, :count], last[..., count:, width:]
        total = add_up(rows_first[2] + rows_last[2], width)
        joined[..., width, :count] = total
        incomplete = arcs[..., width, :count] + total
        first[0, ..., width - 1, :count] = incomplete[0]
        last[1, ..., count, width:] = incomplete[1]
        complete = add_up(rows_first[:2] + rows_last[:2], width)
        first[2, ..., width, :count] = complete[0]
        last[0, ..., count - 1, width:] = complete[0]
        first[1, ..., width, :count] = complete[1]
        last[2, ..., count - 1, width:] = complete[1]
        if single_root:
            # Nothing more is joined to ROOT's first word and what it governs.
            first[2, 0, ..., width, 0] = -torch.inf
    return _Charts(first, last, joined)


# ----------------------------------------------------------------------------------------------------------
# Argmax
# ----------------------------------------------------------------------------------------------------------


def projective_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
    """
    See `spigot_allennlp.functional.projective.projective_heads`: the same trees, ties included, as the sums and their
    order are the same.
    """
    scores, _ = _shifted_scores(scores, mask)
    batch_size, tokens = mask.shape
    # The rows of the maxima, by width and first token.
    # shape: (3, batch, tokens, tokens)
    rows = torch.zeros(3, *scores.shape, dtype=torch.long, device=scores.device)

    def maximum(terms: torch.Tensor, width: int) -> torch.Tensor:
        best, row = terms.max(-2)
        # Two sums, right and left, or the sum over the joined spans.
        chart = rows[:2] if terms.dim() == 5 else rows[2]
        chart[..., width, : row.size(-1)] = row.squeeze(-3)
        return best

    _inside(_by_width(scores.unsqueeze(0)), single_root, maximum)
    return _read_off(rows, mask)


def _read_off(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    The heads, `(batch, tokens)`. All tokens of all sentences work at once: each holds the far ends of the complete
    spans that it still has to take apart, one on either side, and in each round it attaches the outermost word `m` on
    either side. That leaves it `[h, r]`, and gives `m` what lies beyond on both sides.

    One round attaches at least one word of every unfinished sentence, hence T - 1 rounds, and no question to the
    device whether they were needed.
    """
    batch_size, tokens = mask.shape
    position = torch.arange(tokens, device=mask.device)
    # The word that is attached, by (head, end), and what the head keeps, by (head, word).
    # As arcs (dependents, heads), these are to be read as (end, head).
    outermost = _by_dependent(torch.stack([rows[0] + position + 1, rows[1] + position])).mT
    splits = rows[2] + position
    kept = _by_dependent(torch.stack([splits, splits + 1])).mT
    # A token that is done attaches itself to the token after the last, where nothing is read.
    itself = position.unsqueeze(1) == position
    kept = torch.where(itself, position, kept.gather(-1, torch.where(itself, 0, outermost)))
    outermost = outermost.masked_fill(itself, tokens)

    # Slots `2 * token + side`, one token more than there are; sides: right, left.
    side = torch.arange(2, device=mask.device)
    slot = torch.arange(2 * tokens, device=mask.device).view(tokens, 2)
    # shape: (batch, tokens, 2)
    ends = position.view(1, tokens, 1).repeat(batch_size, 1, 2)
    ends[:, 0, 0] = (mask.sum(-1) - 1).clamp(min=0)
    heads = torch.full((batch_size, 2 * (tokens + 1)), -1, device=mask.device)
    owners = torch.div(slot, 2, rounding_mode="floor").view(1, -1).expand(batch_size, -1)
    for _ in range(tokens - 1):
        word = 2 * outermost.gather(-1, ends)
        outer, inner = (word + side).flatten(1), (word + 1 - side).flatten(1)
        left = kept.gather(-1, ends)
        heads.scatter_(1, outer, owners)
        updated = torch.nn.functional.pad(left.flatten(1), (0, 2))
        updated.scatter_(1, outer, ends.flatten(1))
        updated.scatter_(1, inner, (left + 1 - 2 * side).flatten(1))
        ends = updated[:, :-2].view(batch_size, tokens, 2)
    return heads[:, :-2].view(batch_size, tokens, 2).amax(-1)


# ----------------------------------------------------------------------------------------------------------
# Inside and outside
# ----------------------------------------------------------------------------------------------------------

# Numbers have one component, their logarithm, or two, with its derivative: of a product both are sums, which is
# why `_inside` needs not know of it.


def _log_sum(terms: torch.Tensor, width: int) -> torch.Tensor:
    """`add_up` of `_inside`. The derivative is the mean under the terms' shares."""
    values = terms[..., :1, :, :, :]
    total = values.logsumexp(-2)
    if terms.size(-4) == 1:
        return total
    shares = (values - total.unsqueeze(-2)).exp()
    return torch.cat([total, (shares * terms[..., 1:, :, :, :]).sum(-2)], dim=-3)


def _pass_on(terms: torch.Tensor, total: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
    """
    The probability of each term, in its sum's probability `outer`, `(..., components, batch, spans)`; of the two
    components of probabilities, the second is the derivative of the first.
    """
    shares = (terms[..., :1, :, :, :] - total[..., :1, :, :].unsqueeze(-2)).exp()
    passed = shares * outer.unsqueeze(-2)
    if terms.size(-4) == 2:
        change = (terms - total.unsqueeze(-2))[..., 1:, :, :, :]
        passed[..., 1:, :, :, :] += passed[..., :1, :, :, :] * change
    return passed


def inside_outside(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, direction: Optional[torch.Tensor] = None
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    See `_inside_outside` of `inside_outside.py`. Works on logarithms in float64, which hold any
    scores that the kernels' extended numbers hold, and backwards on probabilities, which are between 0 and 1.
    """
    shifted, highest = _shifted_scores(scores.double(), mask)
    components = shifted.unsqueeze(0)
    if direction is not None:
        # Relative to the best head's: constants have no effect but on rounding.
        direction = direction.double().masked_fill(~legal_arcs(mask), 0.0)
        direction = direction - direction.gather(-1, shifted.argmax(-1, keepdim=True))
        components = torch.stack([shifted, direction])
    arcs = _by_width(components)
    first, last, joined = _inside(arcs, single_root, _log_sum)

    # Each sentence's tree spans ROOT and its own last word.
    batch_size, tokens = mask.shape
    sentence = torch.arange(batch_size, device=mask.device)
    length = mask.sum(-1).clamp(min=1)
    goal = 0, 0, sentence, tokens - length, length - 1
    log_total = last[goal]
    exists = ~(log_total < FORBIDDEN / 2)

    # Probabilities of all that the charts hold, from the widest spans to the narrowest.
    first_outer, last_outer = torch.zeros_like(first), torch.zeros_like(last)
    last_outer[goal] = 1.0
    probabilities = torch.zeros_like(arcs)
    for width in range(tokens - 1, 0, -1):
        count = tokens - width
        rows = (..., slice(width), slice(count)), (..., slice(count, None), slice(width, None))
        complete = torch.stack([last[0, ..., count - 1, width:], first[1, ..., width, :count]])
        outer = torch.stack([last_outer[0, ..., count - 1, width:], first_outer[1, ..., width, :count]])
        outer += torch.stack([first_outer[2, ..., width, :count], last_outer[2, ..., count - 1, width:]])
        passed = _pass_on(first[:2][rows[0]] + last[:2][rows[1]], complete, outer)
        first_outer[:2][rows[0]] += passed
        last_outer[:2][rows[1]] += passed
        incomplete = torch.stack([first_outer[0, ..., width - 1, :count], last_outer[1, ..., count, width:]])
        probabilities[..., width, :count] = incomplete
        passed = _pass_on(first[2][rows[0]] + last[2][rows[1]], joined[..., width, :count], incomplete.sum(0))
        first_outer[2][rows[0]] += passed
        last_outer[2][rows[1]] += passed

    words = mask & exists.unsqueeze(-1)
    log_partition = (log_total + highest.masked_fill(~words, 0.0).sum(-1)).masked_fill(~exists, -torch.inf)
    log_partition = log_partition.masked_fill(mask.sum(-1) < 2, 0.0)
    marginals = _by_dependent(probabilities)[-1].masked_fill(~legal_arcs(words), 0.0)
    return log_partition.to(scores.dtype), marginals.to(scores.dtype)
