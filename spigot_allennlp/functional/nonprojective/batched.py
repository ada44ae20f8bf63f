"""
The matrix-tree theorem as torch operations on all sentences at once: for scores that lie on a GPU. Used by
`sums.py`, where `routes.py` says so; runs on any device.

This is the textbook's determinant and inverse (Koo et al. 2007), which lose all digits where the Laplacian is
ill-conditioned. They come with bounds of their errors; `sums.py` gives the sentences whose bounds are too
large, those with no tree among them, to the compiled elimination, which needs no luck.
"""

from typing import Optional, Tuple

import torch

from spigot_allennlp.functional.trees import legal_arcs


def _laplacian(weights: torch.Tensor, single_root: bool) -> torch.Tensor:
    """
    `(batch, tokens, tokens)` to `(batch, words, words)`. With a single root, the arcs from ROOT take the place of the
    first column (Koo et al. 2007, section 3.2). Linear.
    """
    root, inner = weights[:, 1:, 0], weights[:, 1:, 1:]
    if single_root:
        laplacian = torch.diag_embed(inner.sum(-1)) - inner
        return torch.cat([root.unsqueeze(-1), laplacian[:, :, 1:]], dim=-1)
    return torch.diag_embed(inner.sum(-1) + root) - inner


def _adjoint(gradient: torch.Tensor, single_root: bool, sign: float = -1.0) -> torch.Tensor:
    """
    The adjoint of `_laplacian`, `(batch, words, words)` to `(batch, tokens, tokens)`; with `sign` 1, what it makes of
    errors.
    """
    diagonal = gradient.diagonal(dim1=-2, dim2=-1)
    root = diagonal
    if single_root:
        root = gradient[:, :, 0]
        gradient = torch.nn.functional.pad(gradient[:, :, 1:], (1, 0))
        diagonal = gradient.diagonal(dim1=-2, dim2=-1)
    arcs = torch.cat([root.unsqueeze(-1), diagonal.unsqueeze(-1) + sign * gradient], dim=-1)
    return torch.nn.functional.pad(arcs, (0, 0, 1, 0))


def matrix_tree(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, direction: Optional[torch.Tensor] = None
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    # Returns

    `Tuple[torch.Tensor, torch.Tensor, torch.Tensor]`
        The log-partition function, `(batch,)`, and the marginals or, given a direction, their derivative as the scores
        move along it, `(batch, tokens, tokens)`, both in float64; and, `(batch,)`, whether the errors of both are below
        1e-10, or half a unit of the scores' precision if that is more; errors of the derivative are relative to the
        direction's largest number.
    """
    if mask.size(1) < 2:
        return (
            torch.zeros_like(scores[:, 0, 0], dtype=torch.double),
            torch.zeros_like(scores, dtype=torch.double),
            mask.new_ones(len(mask)),
        )
    tolerance = max(1e-10, torch.finfo(scores.dtype).eps / 2)
    legal = legal_arcs(mask)
    scores = scores.detach().double().masked_fill(~legal, -torch.inf)
    # Each word has one head: what is common to its arcs changes no probability.
    highest, best = scores.max(-1, keepdim=True)
    words = legal.any(-1)
    weights = torch.where(words.unsqueeze(-1), (scores - highest).exp(), 0.0)

    # Padding has the identity's rows and columns.
    # shape: (batch, words, words)
    laplacian = _laplacian(weights, single_root) + torch.diag_embed((~words[:, 1:]).double())
    factors, pivots, _ = torch.linalg.lu_factor_ex(laplacian)
    identity = torch.eye(laplacian.size(-1), dtype=torch.double, device=scores.device)
    inverse = torch.linalg.lu_solve(factors, pivots, identity.expand_as(laplacian))
    log_partition = factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    log_partition = log_partition + highest.squeeze(-1).masked_fill(~words, 0.0).sum(-1)

    # With residual R = 1 - L X, the inverse differs from X by X R + O(R^2). Computing R, and L itself, rounds.
    unit = laplacian.size(-1) * torch.finfo(torch.double).eps
    magnitude = laplacian.abs() @ inverse.abs()
    residual = (identity - laplacian @ inverse).abs() + unit * magnitude
    error = inverse.abs() @ residual
    # Rounding in L, as the logarithm of its determinant feels it.
    bound = unit * magnitude.diagonal(dim1=-2, dim2=-1).sum(-1)
    result = weights * _adjoint(inverse.mT, single_root)
    result_error = weights * _adjoint(error.mT, single_root, sign=1.0)
    if direction is None:
        result = result.clamp(0.0, 1.0)
    else:
        direction = direction.double().masked_fill(~legal | scores.isneginf(), 0.0)
        scale = direction.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.double).tiny)
        # Relative to the best head's: constants have no effect but on rounding.
        direction = (direction - direction.gather(-1, best)) / scale
        moved = weights * direction
        change = _laplacian(moved, single_root)
        result = direction * result - weights * _adjoint((inverse @ change @ inverse).mT, single_root)
        swing = inverse.abs() @ change.abs()
        swing_error = swing @ error + error @ (change.abs() @ inverse.abs())
        result_error = direction.abs() * result_error + weights * _adjoint(swing_error.mT, single_root, sign=1.0)
        result = scale * result
    certified = (bound <= tolerance) & (result_error.amax((1, 2)) <= tolerance)
    return log_partition, torch.where(legal, result, 0.0), certified
