from typing import List, Optional, Union

import torch
import torch.distributed as dist
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import is_distributed

from spigot_allennlp.modules.graph_loss import labeled_arcs
from spigot_allennlp.modules.relations import Relations


class DeterministicRoles(torch.nn.Module):
    """
    The roles which a predicate gives to one argument at most (Flanigan et al. 2014; Martins and Almeida 2014). They
    are part of the state dict.

    # Parameters

    relations : `Relations`
        The labels of the graph.
    roles : `Union[str, List[str]]`
        Labels of the roles, or `"observed"`: the labels that occur in the training data, and never twice at one
        predicate. Each training batch is looked at before it is learned from, so that after the first epoch all data
        have been.

    # Errors

    `ConfigurationError` for a label that the vocabulary does not have, and for another string.
    """

    def __init__(self, relations: Relations, roles: Union[str, List[str]]) -> None:
        super().__init__()
        self.observed = roles == "observed"
        if isinstance(roles, str) and not self.observed:
            raise ConfigurationError(f"deterministic_roles is '{roles}'; valid: 'observed', or a list of labels")
        num_labels = max(relations.num_labels, 1)
        # Rows: whether a label occurred, and whether it did so twice at one predicate.
        self.register_buffer("occurrences", torch.zeros(2, num_labels, dtype=torch.bool))
        self.occurrences: torch.Tensor
        labels = relations.labels_by_name()
        for role in [] if self.observed else roles:
            if role not in labels:
                raise ConfigurationError(
                    f"deterministic_roles has '{role}', which no graph of the data has; valid: {', '.join(labels)}"
                )
            self.occurrences[0, labels[role]] = True

    def forward(self) -> torch.Tensor:
        """
        Boolean `(labels,)`.
        """
        occurs, repeats = self.occurrences
        return occurs & ~repeats

    def observe(self, gold: Optional[torch.Tensor]) -> None:
        """
        To be called once in every training step, by all workers of a distributed run, which share what they see; not
        in training mode, it does nothing.

        # Parameters

        gold : `torch.Tensor`, optional
            `(batch, dependents, heads)`: the labels of gold arcs as in `GraphLoss`; `None` if the batch has no graphs.
        """
        if not (self.observed and self.training):
            return
        seen = torch.zeros_like(self.occurrences)
        if gold is not None:
            num_labels = seen.size(1)
            index = labeled_arcs(gold >= 0)
            label = Relations.labels(gold[index], num_labels)
            known = label >= 0
            predicate = index[0] * gold.size(2) + index[2]
            used, counts = (predicate * num_labels + label)[known].unique(return_counts=True)
            seen[0, used % num_labels] = True
            seen[1, used[counts > 1] % num_labels] = True
        if is_distributed():
            shared = seen.int()
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            seen = shared.bool()
        self.occurrences |= seen
