from typing import Tuple

import torch

from spigot_allennlp.modules.arc_scorer import end_projection


class ArcLabeler(torch.nn.Module):
    """
    Scores the labels of given arcs by a biaffine form for each label (Dozat and Manning 2017, section 2.2). Only the
    arcs asked for are scored: a graph has O(n) arcs, not O(n^2).

    # Parameters

    input_dim : `int`
        The states' size.
    num_labels : `int`
        Number of labels.
    label_dim : `int`, optional (default = `64`)
        Size of the projected states.
    dropout : `float`, optional (default = `0.0`)
        Dropout rate of the projected states.
    """

    def __init__(self, input_dim: int, num_labels: int, label_dim: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.dependent = end_projection(input_dim, label_dim, dropout)
        self.head = end_projection(input_dim, label_dim, dropout)
        # One matrix for each label, of all pairs of what stands at the two ends; the last row and column of each are
        # the linear terms.
        self.bilinear = torch.nn.Linear(label_dim + 1, num_labels * (label_dim + 1), bias=False)

    def forward(self, states: torch.Tensor, arcs: Tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, state_dim)`.
        arcs : `Tuple[torch.Tensor, torch.Tensor, torch.Tensor]`
            Indices of the batch, dependent and head of each arc, `(arcs,)` each, as `nonzero(as_tuple=True)` gives.

        # Returns

        `torch.Tensor`
            `(arcs, labels)`.
        """
        batch, dependents, heads = arcs
        dependent, head = self.dependent(states)[batch, dependents], self.head(states)[batch, heads]
        linear = torch.nn.functional.linear
        # shape: (labels, label_dim + 1, label_dim + 1). In parts, for matrix products of round sizes are twice as fast.
        weights = self.bilinear.weight.view(self.num_labels, head.size(-1) + 1, -1)
        # shape: (arcs, label_dim * label_dim): smaller than a vector for each label where labels are many.
        pairs = (head.unsqueeze(-1) * dependent.unsqueeze(-2)).flatten(1)
        of_pairs = linear(pairs, weights[:, :-1, :-1].flatten(1), weights[:, -1, -1])
        return of_pairs + linear(dependent, weights[:, -1, :-1]) + linear(head, weights[:, :-1, -1])

    def all_arcs(self, states: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, state_dim)`.

        # Returns

        `torch.Tensor`
            `(batch, dependents, heads, labels)`: the labels of every pair of tokens.
        """
        dependent = torch.nn.functional.pad(self.dependent(states), (0, 1), value=1.0)
        head = torch.nn.functional.pad(self.head(states), (0, 1), value=1.0)
        # shape: (batch, dependents * labels, label_dim + 1)
        by_label = self.bilinear(dependent).view(len(states), -1, head.size(-1))
        scores = torch.bmm(by_label, head.transpose(1, 2))
        return scores.view(*states.shape[:2], self.num_labels, -1).transpose(-1, -2)
