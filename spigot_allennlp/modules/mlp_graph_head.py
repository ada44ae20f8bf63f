from typing import List, Optional, Tuple, Union

import torch
from allennlp.common import Lazy
from allennlp.data import Vocabulary
from allennlp.nn import Activation

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.modules.arc_pruner import ArcPruner
from spigot_allennlp.modules.graph_head import GraphHead
from spigot_allennlp.modules.graph_loss import GraphLoss
from spigot_allennlp.modules.head_composer import HeadComposer
from spigot_allennlp.modules.mlp_arc_scorer import PairPerceptron
from spigot_allennlp.modules.pos_pairs import PosPairs


@GraphHead.register("mlp")
class MlpGraphHead(GraphHead):
    """
    The graph parser of Peng et al. (2018, section 4.1). Arcs, their labels and predicates are scored by perceptrons
    with two layers of tanh. Whatever a first layer reads has weights of its own, for the token and for its head:

        u_i = W_self h_i + sum_j z[i, j] W_head h_j + b

    for `u` as the dependent and the head of an arc, the dependent and the head of a labeled arc, and a predicate.

    # Parameters

    vocab : `Vocabulary`
        The vocabulary with the graph's labels.
    input_dim : `int`
        Size of the states, before they are conditioned on the tree.
    hidden_dim : `int`, optional (default = `100`)
        Size of all hidden layers.
    loss : `GraphLoss`, optional (default = cross-entropy)
        Supervised loss, and with it the meaning of the scores.
    pruner : `ArcPruner`, optional (default = `None`)
        Pruner of arcs; its model scores graphs, and was trained before by cross-entropy.
    pos_pairs : `Lazy[PosPairs]`, optional (default = `None`)
        Pruner of arcs and labels by parts of speech.
    predicates : `bool`, optional (default = `True`)
        Whether predicates have scores, and arcs need theirs: see `best_graph`.
    deterministic_roles : `Union[str, List[str]]`, optional (default = `None`)
        Labels that a predicate gives to one argument at most: see `GraphHead`.
    label_namespace : `str`, optional (default = `"arc_relations"`)
        Namespace of the labels.

    # Errors

    `ConfigurationError` for a `hidden_dim` below 1 and for roles that are not labels.
    """

    def __init__(
        self,
        vocab: Vocabulary,
        input_dim: int,
        hidden_dim: int = 100,
        loss: GraphLoss = None,
        pruner: ArcPruner = None,
        pos_pairs: Optional[Lazy[PosPairs]] = None,
        predicates: bool = True,
        deterministic_roles: Union[str, List[str]] = None,
        label_namespace: str = "arc_relations",
    ) -> None:
        torch.nn.Module.__init__(self)
        at_least_one("hidden_dim", hidden_dim)
        num_labels = self._set_relations(vocab, label_namespace)
        self._input_dim = input_dim
        self._hidden_dim = hidden_dim
        self.arc_scorer = _ArcPerceptron(hidden_dim, 2, 1)
        self.labeler = _LabelPerceptron(hidden_dim, 2, num_labels)
        self.predicate_scorer = _PredicatePerceptron(hidden_dim, 2, 1) if predicates else None
        self._set_decoding(vocab, loss, pruner, pos_pairs, deterministic_roles)

    def composer(self) -> HeadComposer:
        # The first layers of all perceptrons, one beside the other.
        return HeadComposer(self._input_dim, len(_ENDS) * self._hidden_dim, Activation.by_name("linear")())


_ENDS = ("arc_dependent", "arc_head", "label_dependent", "label_head", "predicate")


def _ends(states: torch.Tensor, *names: str) -> Tuple[torch.Tensor, ...]:
    """The first layers of `names`, of the composed states `(batch, tokens, 5 * hidden_dim)`."""
    layers = states.chunk(len(_ENDS), dim=-1)
    return tuple(layers[_ENDS.index(name)] for name in names)


class _ArcPerceptron(PairPerceptron):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, dependents, heads)`."""
        return self.all_pairs(*_ends(states, "arc_dependent", "arc_head")).squeeze(-1)


class _LabelPerceptron(PairPerceptron):
    """Like `ArcLabeler`."""

    @property
    def num_labels(self) -> int:
        return self.score.out_features

    def forward(self, states: torch.Tensor, arcs: Tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        batch, dependents, heads = arcs
        dependent, head = _ends(states, "label_dependent", "label_head")
        return self.after_first_layer(dependent[batch, dependents] + head[batch, heads])

    def all_arcs(self, states: torch.Tensor) -> torch.Tensor:
        return self.all_pairs(*_ends(states, "label_dependent", "label_head"))


class _PredicatePerceptron(PairPerceptron):
    """Like `PredicateScorer`."""

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        (first,) = _ends(states, "predicate")
        # A copy, as the layer is overwritten.
        scores = self.after_first_layer(first.clone()).squeeze(-1).masked_fill(~mask, 0.0)
        return torch.nn.functional.pad(scores[:, 1:], (1, 0))
