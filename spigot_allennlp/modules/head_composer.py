from typing import Optional

import torch
from allennlp.nn import Activation


class HeadComposer(torch.nn.Module):
    """
    Conditions each token's state on its head's: `W_self h_i + sum_j z[i, j] W_head h_j` (Peng et al. 2018, section
    4.1), where
    `z` is a tree, or marginals, or any relaxation of it. Linear in `z`.

    # Parameters

    input_dim : `int`
        Size of the states.
    output_dim : `int`, optional (default = `input_dim`)
        Size of the composed states.
    activation : `Activation`, optional (default = ELU)
        Function of the composed states.
    """

    def __init__(self, input_dim: int, output_dim: int = None, activation: Activation = None) -> None:
        super().__init__()
        self.activation = activation or Activation.by_name("elu")()
        output_dim = output_dim or input_dim
        self.own = torch.nn.Linear(input_dim, output_dim)
        self.of_head = torch.nn.Linear(input_dim, output_dim, bias=False)

    def forward(self, states: torch.Tensor, arcs: Optional[torch.Tensor]) -> torch.Tensor:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, input_dim)`, ROOT first.
        arcs : `torch.Tensor`, optional
            `z`, `(batch, dependents, heads)`; `None` where there is no structure to condition on.

        # Returns

        `torch.Tensor`
            `(batch, tokens, output_dim)`.
        """
        composed = self.own(states)
        if arcs is not None:
            composed = composed + torch.bmm(arcs.to(composed.dtype), self.of_head(states))
        return self.activation(composed)
