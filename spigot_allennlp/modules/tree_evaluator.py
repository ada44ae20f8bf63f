import torch
from allennlp.modules import FeedForward
from allennlp.nn import Activation

from spigot_allennlp.checks import at_least_one


class TreeEvaluator(torch.nn.Module):
    """
    Passes messages along a tree, from dependents to heads, and reads out at the root (Paulus et al. 2020, section 5.2):

        h_i^0     = f(x_i, 0)
        h_i^{t+1} = f(x_i, sum_d z[d, i] g(h_d^t))
        readout   = sum_i z[i, ROOT] h_i^T

    with perceptrons `f` and `g` that all tokens and steps share. Where `z` is a tree, a token whose subtree is `t` arcs
    deep has its final state after `t` steps.

    # Parameters

    input_dim : `int`
        Size of the tokens' vectors.
    hidden_dim : `int`
        Size of states and messages.
    num_steps : `int`
        Number of steps `T`.

    # Errors

    `ConfigurationError` for a number below 1.
    """

    def __init__(self, input_dim: int, hidden_dim: int, num_steps: int) -> None:
        super().__init__()
        at_least_one("hidden_dim", hidden_dim)
        self.num_steps = at_least_one("num_steps", num_steps)
        relu, linear = Activation.by_name("relu")(), Activation.by_name("linear")()
        self.message = FeedForward(hidden_dim, 1, hidden_dim, relu)
        self.update = FeedForward(input_dim + hidden_dim, 2, hidden_dim, [relu, linear])
        self.norm = torch.nn.LayerNorm(hidden_dim)

    def forward(self, vectors: torch.Tensor, arcs: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        vectors : `torch.Tensor`
            `(batch, tokens, input_dim)`, without ROOT.
        arcs : `torch.Tensor`
            `z`, `(batch, 1 + tokens, 1 + tokens)`: a tree, or a relaxation of one; dependents first, ROOT at index 0.

        # Returns

        `torch.Tensor`
            `(batch, hidden_dim)`.
        """
        arcs = arcs.to(vectors.dtype)
        # shape: (batch, heads, dependents)
        to_heads = arcs[:, 1:, 1:].transpose(1, 2)
        states = self._states(vectors, vectors.new_zeros(*vectors.shape[:2], self.norm.normalized_shape[0]))
        for _ in range(self.num_steps):
            states = self._states(vectors, torch.bmm(to_heads, self.message(states)))
        return torch.bmm(arcs[:, 1:, 0].unsqueeze(1), states).squeeze(1)

    def _states(self, vectors: torch.Tensor, received: torch.Tensor) -> torch.Tensor:
        return self.norm(self.update(torch.cat([vectors, received], dim=-1)))
