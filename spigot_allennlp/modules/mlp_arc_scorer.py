import torch

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.modules.arc_scorer import ArcScorer


@ArcScorer.register("mlp")
class MlpArcScorer(ArcScorer):
    """
    `score(h -> d) = w^T tanh(W [d; h] + b) + c`: a perceptron on the pair of states (Kiperwasser and Goldberg 2016;
    Mihaylova et al. 2020, section 5.2). It takes O(tokens^2 * hidden_dim) memory, `biaffine` O(tokens^2).

    # Parameters

    input_dim : `int`
        The states' size.
    hidden_dim : `int`, optional (default = `100`)
    num_layers : `int`, optional (default = `1`)
        Layers of tanh; Peng et al. (2018) have 2.
    """

    def __init__(self, input_dim: int, hidden_dim: int = 100, num_layers: int = 1) -> None:
        super().__init__()
        # W [d; h] = W_d d + W_h h: the first layer runs over tokens instead of pairs of them.
        self.dependent = torch.nn.Linear(input_dim, hidden_dim)
        self.head = torch.nn.Linear(input_dim, hidden_dim, bias=False)
        more_layers = range(at_least_one("num_layers", num_layers) - 1)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(hidden_dim, hidden_dim) for _ in more_layers)
        self.score = torch.nn.Linear(hidden_dim, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        # shape: (batch, dependents, heads, hidden_dim). In place, as no gradient needs what tanh was applied to.
        pairs = (self.dependent(states).unsqueeze(2) + self.head(states).unsqueeze(1)).tanh_()
        for layer in self.layers:
            pairs = layer(pairs).tanh_()
        return self.score(pairs).squeeze(-1)
