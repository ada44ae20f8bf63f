import torch
from allennlp.common import Registrable
from allennlp.modules import FeedForward
from allennlp.modules.matrix_attention import BilinearMatrixAttention
from allennlp.nn import Activation


class ArcScorer(torch.nn.Module, Registrable):
    """
    Scores every arc from the states of its two ends.
    """

    default_implementation = "biaffine"

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, state_dim)`, ROOT first.

        # Returns

        `torch.Tensor`
            `(batch, dependents, heads)`.
        """
        raise NotImplementedError


def end_projection(input_dim: int, output_dim: int, dropout: float) -> FeedForward:
    """
    The layer that makes, of a token's state, its representation as one end of an arc (Dozat and Manning 2017).
    """
    return FeedForward(input_dim, 1, output_dim, Activation.by_name("elu")(), dropout)


@ArcScorer.register("biaffine")
class BiaffineArcScorer(ArcScorer):
    """
    `score(h -> d) = dep_d^T U head_h + w^T head_h + v^T dep_d + b` (Dozat and Manning 2017, section 2.2).

    # Parameters

    input_dim : `int`
        The states' size.
    arc_dim : `int`, optional (default = `100`)
        The size of `dep` and `head`.
    dropout : `float`, optional (default = `0.0`)
        Dropout rate of the projected states.
    """

    def __init__(self, input_dim: int, arc_dim: int = 100, dropout: float = 0.0) -> None:
        super().__init__()
        self.dependent = end_projection(input_dim, arc_dim, dropout)
        self.head = end_projection(input_dim, arc_dim, dropout)
        self.attention = BilinearMatrixAttention(arc_dim, arc_dim, use_input_biases=True)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        dependent, head = self.dependent(states), self.head(states)
        # What `attention` computes of both, each with a constant 1 appended: in parts, for matrix products of round
        # sizes are faster.
        weight, (bias,) = self.attention._weight_matrix, self.attention._bias
        by_head = torch.nn.functional.linear(dependent, weight[:-1, :-1].t(), weight[-1, :-1])
        of_dependent = torch.nn.functional.linear(dependent, weight[:-1, -1:].t(), weight[-1, -1:] + bias)
        return torch.baddbmm(of_dependent.expand(-1, -1, head.size(1)), by_head, head.transpose(1, 2))
