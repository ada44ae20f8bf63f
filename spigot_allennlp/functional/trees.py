"""
Small conversions and measurements on trees given by their head indices.
"""

import torch


def legal_arcs(mask: torch.Tensor) -> torch.Tensor:
    """
    Which arcs may exist: `(batch, tokens)` to boolean `(batch, dependents, heads)`. ROOT has no head, nothing is its
    own head, padding has neither head nor dependents.
    """
    legal = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    legal = legal & ~torch.eye(mask.size(-1), dtype=torch.bool, device=mask.device)
    legal[:, :1] = False
    return legal


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
        `(..., tokens)`, as `arcs_from_heads` takes them.

    # Returns

    `torch.Tensor`
        `(..., tokens)`: the number of arcs between each word and ROOT; 0 at ROOT and padding; -1 for a word
        that hangs on a cycle.
    """
    depths = torch.zeros_like(heads)
    ancestors = heads
    for _ in range(heads.size(-1)):
        reached = ancestors >= 0
        if not reached.any():
            return depths
        depths += reached
        ancestors = heads.gather(-1, ancestors.clamp(min=0)).masked_fill(~reached, -1)
    return depths.masked_fill(ancestors >= 0, -1)
