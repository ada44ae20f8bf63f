"""
Euclidean projections, `argmin_{p in C} ||p - v||^2`, onto sets simple enough for a formula: the probability
simplex, the unit box, the box with a budget, and the arc with its labels. All work on the last dimension (or
elementwise), over any leading ones, and are differentiable almost everywhere, any number of times: each is
linear around almost every point.
"""

import math
from typing import Optional

import numpy as np
import torch

from spigot_allennlp.functional import routes
from spigot_allennlp.functional.runtime import from_numpy, kernel, parallel_for, to_numpy

# Fewer numbers than this are projected faster than a second thread is woken up.
_ELEMENTS_PER_TASK = 1 << 14


@kernel
def _simplex_kernel(values, totals, projection, start, stop):
    """
    Michelot (1986), i.e. Newton's method on `sum_i max(v_i - tau, 0) = total`, from below: the support only
    shrinks, so it ends after finitely many passes and needs no sort. Values are taken relative to the
    largest, which keeps them exact however large they are, and at first those below `max - total` are
    dropped: they can never be in the support.
    """
    size = values.shape[1]
    zero = values.dtype.type(0)
    for row in range(start, stop):
        largest = values[row, 0]
        for i in range(size):
            largest = max(largest, values[row, i])
        total = totals[row]
        if total <= 0 or largest == -np.inf:
            projection[row] = zero
            continue
        for i in range(size):
            projection[row, i] = values[row, i] - largest
        threshold = -total
        support = size + 1
        while True:
            mass = zero
            count = 0
            for i in range(size):
                inside = projection[row, i] > threshold
                mass += projection[row, i] if inside else zero
                count += inside
            if count >= support:
                break
            support = count
            threshold = (mass - total) / values.dtype.type(count)
        for i in range(size):
            projection[row, i] = max(projection[row, i] - threshold, zero)


def _simplex_by_kernel(values: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    rows = to_numpy(values).reshape(-1, values.size(-1))
    totals = to_numpy(total).reshape(-1)
    projection = np.empty_like(rows)
    grain = max(1, _ELEMENTS_PER_TASK // rows.shape[1])
    parallel_for(
        lambda start, stop: _simplex_kernel(rows, totals, projection, start * grain, min(stop * grain, len(rows))),
        -(-len(rows) // grain),
    )
    return from_numpy(projection, like=values).view(values.shape)


def _simplex_by_sorting(values: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Held et al. (1974); Martins & Astudillo (2016, algorithm 1): the vectorized form, for GPUs."""
    total = total.unsqueeze(-1)
    largest = values.max(dim=-1, keepdim=True).values
    feasible = (largest > -float("inf")) & (total > 0)
    # Values below `largest - total` are never in the support; clamped, they cannot overflow either.
    centered = torch.where(feasible, values - largest, 0.0).clamp(min=-total)
    descending = centered.sort(dim=-1, descending=True).values
    sizes = torch.arange(1, values.size(-1) + 1, dtype=values.dtype, device=values.device)
    candidates = (descending.cumsum(dim=-1) - total) / sizes
    support = (descending > candidates).sum(dim=-1, keepdim=True).clamp(min=1)
    threshold = candidates.gather(-1, support - 1)
    return torch.where(feasible, (centered - threshold).clamp(min=0), 0.0)


class _SimplexProjection(torch.autograd.Function):
    """
    Projects values `(..., K)` onto `{p >= 0, sum p = total}` with totals `(...)`. Around almost every point
    the projection is affine on its support S: `p_S = v_S - mean(v_S) + total / |S|`. The backward pass is
    made of torch operations that are linear in the gradient, and therefore differentiable itself.
    """

    @staticmethod
    def forward(ctx, values, total):
        batched = routes.batched_on_device("simplex projection", values)
        projection = (_simplex_by_sorting if batched else _simplex_by_kernel)(values, total)
        ctx.save_for_backward(projection)
        return projection

    @staticmethod
    def backward(ctx, gradient):
        (projection,) = ctx.saved_tensors
        support = (projection > 0).to(gradient.dtype)
        inside = gradient * support
        mean = inside.sum(dim=-1, keepdim=True) / support.sum(dim=-1, keepdim=True).clamp(min=1)
        return inside - support * mean, mean.squeeze(-1)


def project_simplex(values: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
    """
    Sparsemax: `argmin_p ||p - values||^2` subject to `p >= 0, sum p = 1`, over the last dimension (Martins &
    Astudillo 2016).

    # Parameters

    values : `torch.Tensor`
        `(..., K)`, float32 or float64. `-inf` forbids an entry.
    mask : `torch.BoolTensor`, optional (default = `None`)
        `(..., K)`: false where an entry does not exist.

    # Returns

    `torch.Tensor`
        `(..., K)`: exactly 0 at forbidden entries; a row with none that is allowed is all zeros.
    """
    if mask is not None:
        values = torch.where(mask, values, -float("inf"))
    if values.numel() == 0:
        return values.clone()
    return _SimplexProjection.apply(values, values.new_ones(values.shape[:-1]))


def project_box(values: torch.Tensor) -> torch.Tensor:
    """
    `argmin_x ||x - values||^2` subject to `0 <= x <= 1`: each value on its own, hence a clip. Any shape.
    """
    return values.clamp(0, 1)


def _spend_budget(values: torch.Tensor, budget: float) -> torch.Tensor:
    """`clip(v - tau, 0, 1)` with `tau >= 0` such that it sums to the budget, for rows whose clip exceeds it."""
    # Where the largest `budget` values are more than 1 above all others, any tau between serves, otherwise it lies less
    # than 1 below the last of them: relative to that point, all that counts is between 0 and 2, and rounding does not
    # depend on how large values are. Those below 0 never count, those above 2 always do.
    last = values.topk(max(1, math.ceil(budget)), dim=-1).values[..., -1:]
    values = (values - last + 1).clamp(0, 2)
    # sum_i clip(v_i - tau, 0, 1) as a function of tau, at its breakpoints from the right: its slope is +1 for each
    # v_i and -1 for each v_i - 1 passed so far.
    breakpoints, order = torch.cat([values, values - 1], dim=-1).sort(dim=-1, descending=True)
    slopes = torch.where(order < values.size(-1), 1.0, -1.0).to(values.dtype).cumsum(dim=-1)
    rises = slopes[..., :-1] * (breakpoints[..., :-1] - breakpoints[..., 1:])
    # `last`: the last breakpoint at which the budget is still kept.
    last = (rises.cumsum(dim=-1) <= budget).sum(dim=-1, keepdim=True)
    threshold = breakpoints.gather(-1, last)
    # Newton's method on the piece that the root lies on. The second step only removes the rounding of the sums.
    slope = slopes.gather(-1, last).clamp(min=1)
    for _ in range(2):
        used = (values - threshold).clamp(0, 1).sum(dim=-1, keepdim=True)
        threshold = threshold + (used - budget) / slope
    return (values - threshold.clamp(min=0)).clamp(0, 1)


class _BudgetProjection(torch.autograd.Function):
    """
    `x = clip(v - tau, 0, 1)` with the smallest `tau >= 0` that keeps the budget. Where it binds, moving the
    values moves `tau` by their mean over the free entries, those strictly between 0 and 1.
    """

    @staticmethod
    def forward(ctx, values, budget):
        projection = values.clamp(0, 1)
        binds = projection.sum(dim=-1) > budget
        projection[binds] = _spend_budget(values[binds], budget)
        ctx.save_for_backward(projection, binds)
        return projection

    @staticmethod
    def backward(ctx, gradient):
        projection, binds = ctx.saved_tensors
        free = ((projection > 0) & (projection < 1)).to(gradient.dtype)
        inside = gradient * free
        mean = inside.sum(dim=-1, keepdim=True) / free.sum(dim=-1, keepdim=True).clamp(min=1)
        return inside - free * mean * binds.unsqueeze(-1), None


def project_budget(values: torch.Tensor, budget: float, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
    """
    `argmin_x ||x - values||^2` subject to `0 <= x <= 1, sum x <= budget`, over the last dimension: the convex
    hull of the subsets of at most `budget` entries.

    # Parameters

    values : `torch.Tensor`
        `(..., K)`, float32 or float64. `-inf` forbids an entry.
    budget : `float`
        Largest sum, at least 0; `ValueError` if it is not.
    mask : `torch.BoolTensor`, optional (default = `None`)
        `(..., K)`: false where an entry does not exist.

    # Returns

    `torch.Tensor`
        `(..., K)`: exactly 0 at forbidden entries.
    """
    if not budget >= 0:
        raise ValueError(f"budget must be a number of at least 0, got {budget!r}")
    if mask is not None:
        values = torch.where(mask, values, -float("inf"))
    if budget >= values.size(-1):
        return project_box(values)
    return _BudgetProjection.apply(values, budget)


def project_labeled_arcs_sequential(arcs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The projection of Peng et al. (2018, section 4.2) for labeled graphs, arc by arc: first the arc is
    clipped to [0, 1], then its labels are projected onto `{0 <= x <= 1, sum x = arc}`. Feasible, but in
    general not the nearest feasible point: for that see `project_labeled_arcs_jointly`.

    # Parameters

    arcs : `torch.Tensor`
        `(...)`. `-inf` forbids an arc.
    labels : `torch.Tensor`
        `(..., L)`. `-inf` forbids a label; an arc that has no label left is forbidden.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor]`
        Arcs `(...)` and labels `(..., L)`, where the labels of an arc sum to the arc.
    """
    possible = (labels > -float("inf")).any(dim=-1)
    arcs = project_box(arcs).masked_fill(~possible, 0.0)
    return arcs, _SimplexProjection.apply(labels, arcs)


def project_labeled_arcs_jointly(arcs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `argmin_{a, x} (a - arc)^2 + ||x - labels||^2` subject to `0 <= a <= 1, x >= 0, sum x = a`, for each arc:
    the Euclidean projection onto the convex hull of "no arc" and "the arc with one of its labels".

    With the slack `1 - a` in place of `a` this is the projection of `(1 - arc, labels)` onto the simplex.

    # Parameters

    arcs : `torch.Tensor`
        `(...)`. `-inf` forbids an arc.
    labels : `torch.Tensor`
        `(..., L)`. `-inf` forbids a label; an arc that has no label left is forbidden.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor]`
        Arcs `(...)` and labels `(..., L)`, where the labels of an arc sum to the arc.
    """
    forbidden = arcs == -float("inf")
    slack = 1 - arcs.masked_fill(forbidden, 0.0)
    labels = labels.masked_fill(forbidden.unsqueeze(-1), -float("inf"))
    projection = project_simplex(torch.cat([slack.unsqueeze(-1), labels], dim=-1))
    labels = projection[..., 1:]
    return labels.sum(dim=-1), labels
