import torch


class RootSentinel(torch.nn.Module):
    """
    Puts a learned state for ROOT before the words' states.

    # Parameters

    dim : `int`
        Size of the vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.state = torch.nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, words, dim)` to `(batch, 1 + words, dim)`."""
        return torch.cat([self.state.expand(len(states), 1, -1), states], dim=1)


def mask_with_root(mask: torch.Tensor) -> torch.Tensor:
    """`(batch, words)` to `(batch, 1 + words)`; a row that is all padding has no ROOT either."""
    return torch.cat([mask.any(-1, keepdim=True), mask], dim=1)


def with_root(values: torch.Tensor, root_value: int, mask: torch.Tensor) -> torch.Tensor:
    """
    `(batch, words)` to `(batch, 1 + words)`, with `root_value` at ROOT and at padding.
    """
    return torch.nn.functional.pad(values.masked_fill(~mask, root_value), (1, 0), value=root_value)
