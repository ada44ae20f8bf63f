from typing import Tuple, Union

import torch

from spigot_allennlp.functional.sparsemap.active_set import CompiledOracle
from spigot_allennlp.functional.sparsemap.projection import active_set
from spigot_allennlp.functional.sparsemap.rounds import Oracle


def sparse_distribution(
    point: torch.Tensor, oracle: Union[Oracle, CompiledOracle]
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The distribution of SparseMAP (Niculae et al. 2018): affinely independent vertices whose mean is the Euclidean
    projection of `point`, and their probabilities

        q = argmin ||sum_i q_i y_i - point||^2  subject to  sum_i q_i = 1,

    which are linear in the point as long as the vertices stay the same. Their derivative is the matrix of that linear
    map, `M^-1 Y` less what changes the sum, where `Y` are the vertices and `M = Y Y^T + 1 1^T`.

    # Parameters

    point : `torch.Tensor`
        `(batch, ...)`; -inf forbids a part.
    oracle : `Callable[[Tensor, LongTensor], Tensor]`
        Argmax, as in `active_set`.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor]`
        0/1 vertices `(batch, vertices, ...)` and probabilities `(batch, vertices)`, the greatest first and
        differentiable in the point. Where an instance has fewer vertices, the rest are empty with probability 0.
    """
    solution = active_set(point, oracle)
    order = solution.weights.argsort(dim=-1, descending=True, stable=True)
    weights = solution.weights.gather(1, order)
    parts = solution.parts.gather(1, order.unsqueeze(-1).expand_as(solution.parts))
    size = point[:1].numel()
    vertices = weights.new_zeros(*weights.shape, size + 1)
    # The last column takes what follows a vertex's last part.
    vertices.scatter_(-1, torch.where(parts < 0, size, parts).long(), 1.0)
    vertices = vertices[..., :size] * (weights > 0).unsqueeze(-1)
    if point.requires_grad and torch.is_grad_enabled():
        finite = point.masked_fill(point.isneginf(), 0.0).flatten(1).double()
        moving = torch.einsum("bvp,bp->bv", _derivative(vertices, weights > 0), finite)
        weights = weights + (moving - moving.detach())
    return vertices.view(*weights.shape, *point.shape[1:]).to(point.dtype), weights.to(point.dtype)


def _derivative(vertices: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """`dq / dpoint`, `(batch, vertices, parts)`."""
    ones = active.to(vertices.dtype).unsqueeze(-1)
    # The identity for the vertices that are not there.
    matrix = vertices @ vertices.mT + ones @ ones.mT + torch.diag_embed(1.0 - ones.squeeze(-1))
    solved = torch.linalg.solve(matrix, torch.cat([vertices, ones], dim=-1))
    moved, constant = solved[..., :-1], solved[..., -1:]
    excess = moved.sum(1, keepdim=True) / constant.sum(1, keepdim=True).clamp(min=torch.finfo(vertices.dtype).tiny)
    return moved - constant * excess
