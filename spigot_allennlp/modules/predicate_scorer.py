import torch


class PredicateScorer(torch.nn.Module):
    """
    Scores each word as a predicate, a head of arcs: `w^T tanh(W h + b) + c` (Peng et al. 2018, section 4.1).

    # Parameters

    input_dim : `int`
        The states' size.
    hidden_dim : `int`
        Size of the hidden layer.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(input_dim, hidden_dim)
        self.score = torch.nn.Linear(hidden_dim, 1)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        `(batch, tokens, input_dim)` and the mask `(batch, tokens)` to `(batch, tokens)`; 0 at ROOT, whose arcs mark top
        nodes, and at padding.
        """
        scores = self.score(self.hidden(states).tanh()).squeeze(-1).masked_fill(~mask, 0.0)
        return torch.nn.functional.pad(scores[:, 1:], (1, 0))
