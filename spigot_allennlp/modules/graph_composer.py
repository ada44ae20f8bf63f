import torch
from allennlp.common.checks import ConfigurationError


class GraphComposer(torch.nn.Module):
    """
    Conditions each word's state on its heads and the labels of its arcs in a graph (Peng et al. 2018, section 4.2):

        v_i = ReLU(b + W_s h_i + (sum_j z[i, j] W_h h_j + sum_{j, l} z[i, j, l] W_r e_l) / max(1, sum_j z[i, j]))

    where `z[i, j]` are the arcs, `z[i, j, l]` are their labels, and `e_l` embeds the label `l`. The divisor is held
    constant in the backward pass, so that `v_i` is linear in `z` as far as an estimator is concerned. Unlabeled arcs
    have no last sum.

    # Parameters

    input_dim : `int`
        Size of the states.
    output_dim : `int`
        Size of the composed vectors.
    num_labels : `int`, optional (default = `None`)
        Number of labels; `None` if arcs have none.
    label_dim : `int`, optional (default = `50`)
        Size of `e_l`.

    # Errors

    `ConfigurationError` for arcs without labels, where it has embeddings of labels, and the other way round.
    """

    def __init__(self, input_dim: int, output_dim: int, num_labels: int = None, label_dim: int = 50) -> None:
        super().__init__()
        self.own = torch.nn.Linear(input_dim, output_dim)
        self.of_heads = torch.nn.Linear(input_dim, output_dim, bias=False)
        self.of_labels = None
        if num_labels is not None:
            self.of_labels = torch.nn.Sequential(
                torch.nn.Embedding(num_labels, label_dim), torch.nn.Linear(label_dim, output_dim, bias=False)
            )

    def forward(self, states: torch.Tensor, arcs: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, words, input_dim)`.
        arcs : `torch.Tensor`
            `z` over the same words: `(batch, dependents, heads)`, or with labels `(batch, dependents, heads,
            1 + labels)`, where entry 0 is the arc.

        # Returns

        `torch.Tensor`
            `(batch, words, output_dim)`.
        """
        self._check(arcs)
        arcs = arcs.to(states.dtype)
        unlabeled = arcs if self.of_labels is None else arcs[..., 0]
        seen = torch.bmm(unlabeled, self.of_heads(states))
        if self.of_labels is not None:
            # shape: (labels, output_dim)
            labels = self.of_labels(torch.arange(arcs.size(-1) - 1, device=arcs.device))
            seen = seen + torch.matmul(arcs[..., 1:].sum(2), labels)
        divisor = unlabeled.detach().sum(-1, keepdim=True).clamp(min=1.0)
        return torch.relu(self.own(states) + seen / divisor)

    def _check(self, arcs: torch.Tensor) -> None:
        wanted = "(batch, dependents, heads)"
        if self.of_labels is not None:
            wanted = f"(batch, dependents, heads, 1 + {self.of_labels[0].num_embeddings} labels)"
            if arcs.dim() == 4 and arcs.size(-1) == 1 + self.of_labels[0].num_embeddings:
                return
        elif arcs.dim() == 3:
            return
        raise ConfigurationError(
            f"the composer takes arcs {wanted}, but the structure gives them in the shape {tuple(arcs.shape)}; valid: "
            "'labeled_arc_graph' for a composer with num_labels, 'arc_graph' for one without"
        )
