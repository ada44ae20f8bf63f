"""
Small conversions and measurements on trees given by their head indices.
"""

import torch


def arcs_from_heads(heads: torch.Tensor, dtype: torch.dtype = torch.float) -> torch.Tensor:
    """
    # Parameters

    heads : `torch.Tensor`
        `(..., tokens)`: the head of each word, 0 for ROOT, -1 where there is none (ROOT itself, padding).

    # Returns

    `torch.Tensor`
        `(..., dependents, heads)`: 1 where the arc is in the tree, else exactly 0.
    """
    arcs = torch.zeros(*heads.shape, heads.size(-1), dtype=dtype, device=heads.device)
    return arcs.scatter_(-1, heads.clamp(min=0).unsqueeze(-1), (heads >= 0).unsqueeze(-1).to(dtype))


def heads_from_arcs(arcs: torch.Tensor) -> torch.Tensor:
    """
    The inverse of `arcs_from_heads`: `(..., dependents, heads)` to `(..., tokens)`; each word's heaviest head, -1 where
    a row is empty.
    """
    weight, heads = arcs.max(dim=-1)
    return heads.masked_fill(weight <= 0, -1)


def tree_depths(heads: torch.Tensor) -> torch.Tensor:
    """
    # Parameters

    heads : `torch.Tensor`
        `(..., tokens)`, as above; acyclic.

    # Returns

    `torch.Tensor`
        `(..., tokens)`: the number of arcs between each word and ROOT; 0 at ROOT and padding.
    """
    depths = torch.zeros_like(heads)
    ancestors = heads
    while (reached := ancestors >= 0).any():
        depths += reached
        ancestors = heads.gather(-1, ancestors.clamp(min=0)).masked_fill(~reached, -1)
    return depths
