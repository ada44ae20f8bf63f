from typing import Tuple

import torch
from allennlp.nn.util import masked_softmax


class AttentionPooling(torch.nn.Module):
    """
    One vector for a sequence: `sum_i a_i x_i` with `a = softmax_i(q^T x_i)`, over real tokens only.

    # Parameters

    input_dim : `int`
        Size of the states.
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        # Without a bias, to which the softmax would be blind.
        self.query = torch.nn.Linear(input_dim, 1, bias=False)

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        # Parameters

        vectors : `torch.Tensor`
            `(batch, tokens, input_dim)`.
        mask : `torch.Tensor`
            `(batch, tokens)`.

        # Returns

        `Tuple[torch.Tensor, torch.Tensor]`
            The means `(batch, input_dim)`, and the attention `(batch, tokens)`: 0 at padding, sums to 1.
        """
        # memory_efficient: the variant that sets padding to the lowest number, and so is exact whatever the scores.
        attention = masked_softmax(self.query(vectors).squeeze(-1), mask, memory_efficient=True)
        return torch.einsum("bn,bnd->bd", attention, vectors), attention
