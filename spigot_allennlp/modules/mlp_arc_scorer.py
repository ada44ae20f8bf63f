import torch

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.modules.arc_scorer import ArcScorer


class PairPerceptron(torch.nn.Module):
    """
    A perceptron with layers of tanh on pairs of tokens, after its first layer: `W [d; h] = W_d d + W_h h` runs over
    tokens instead of pairs of them, and is its user's. Scores are bounded by its last weights.

    # Parameters

    hidden_dim : `int`
        Size of all hidden layers, the first one included.
    num_layers : `int`
        Number of hidden layers, the first one included.
    output_dim : `int`
        Number of scores for each pair.
    """

    def __init__(self, hidden_dim: int, num_layers: int, output_dim: int) -> None:
        super().__init__()
        more_layers = range(at_least_one("num_layers", num_layers) - 1)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(hidden_dim, hidden_dim) for _ in more_layers)
        self.score = torch.nn.Linear(hidden_dim, output_dim)

    def after_first_layer(self, first: torch.Tensor) -> torch.Tensor:
        """
        `(..., hidden_dim)`, the first layer before its tanh, to `(..., output_dim)`. `first` is overwritten.
        """
        # In place, as no gradient needs what tanh was applied to.
        pairs = first.tanh_()
        for layer in self.layers:
            pairs = layer(pairs).tanh_()
        return self.score(pairs)

    def all_pairs(self, dependents: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        """
        Two times `(batch, tokens, hidden_dim)` to `(batch, dependents, heads, output_dim)`.
        """
        return self.after_first_layer(dependents.unsqueeze(2) + heads.unsqueeze(1))


@ArcScorer.register("mlp")
class MlpArcScorer(PairPerceptron, ArcScorer):
    """
    `score(h -> d) = w^T tanh(W [d; h] + b) + c`: a perceptron on the pair of states (Kiperwasser and Goldberg 2016;
    Mihaylova et al. 2020, section 5.2). It takes O(tokens^2 * hidden_dim) memory, `biaffine` O(tokens^2).

    # Parameters

    input_dim : `int`
        Size of the states.
    hidden_dim : `int`, optional (default = `100`)
        Size of the hidden layers.
    num_layers : `int`, optional (default = `1`)
        Number of layers of tanh; Peng et al. (2018) have 2.
    """

    def __init__(self, input_dim: int, hidden_dim: int = 100, num_layers: int = 1) -> None:
        super().__init__(hidden_dim, num_layers, output_dim=1)
        self.dependent = torch.nn.Linear(input_dim, hidden_dim)
        self.head = torch.nn.Linear(input_dim, hidden_dim, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.all_pairs(self.dependent(states), self.head(states)).squeeze(-1)
