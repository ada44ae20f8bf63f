from typing import NamedTuple, Optional

import torch
import torch.distributed as dist
from allennlp.common import FromParams
from allennlp.common.checks import ConfigurationError
from allennlp.common.util import is_distributed
from allennlp.data import TextFieldTensors, Vocabulary

from spigot_allennlp.modules.relations import Relations


class PrunedByPos(NamedTuple):
    """
    # Parameters

    arcs : `torch.Tensor`
        Boolean `(batch, dependents, heads)`: arcs between parts of speech, or over distances, that were never seen.
    labels : `torch.Tensor`
        Boolean `(batch, dependents, heads, labels)`: labels that were never seen, of the other arcs.
    """

    arcs: torch.Tensor
    labels: torch.Tensor


class PosPairs(torch.nn.Module, FromParams):
    """
    Which labels, over which distances, the graphs of the training data have between two parts of speech; what they do
    not have is pruned (Martins and Almeida 2014; Peng et al. 2018). Each training batch is looked at before it is
    learned from, so that no gold arc of it is pruned, and after the first epoch all data have been seen. Arcs from ROOT
    are kept. What was seen is part of the state dict.

    # Parameters

    vocab : `Vocabulary`
        The vocabulary with the labels and the parts of speech.
    relations : `Relations`
        The labels of the graph.
    indexer : `str`, optional (default = `"pos"`)
        Name of the token indexer of parts of speech, a `single_id`.
    namespace : `str`, optional (default = `"pos"`)
        Namespace of the parts of speech.

    # Errors

    `ConfigurationError` for a namespace without entries and for sentences without that indexer.
    """

    def __init__(self, vocab: Vocabulary, relations: Relations, indexer: str = "pos", namespace: str = "pos") -> None:
        super().__init__()
        self.indexer = indexer
        size = vocab.get_vocab_size(namespace)
        if size == 0:
            raise ConfigurationError(
                f"pos_pairs: the vocabulary has nothing in the namespace '{namespace}'; valid: one that an indexer "
                "of parts of speech has, such as { type: 'single_id', namespace: 'pos', feature_name: 'pos_' }"
            )
        self.num_labels = max(relations.num_labels, 1)
        self.register_buffer("labels", torch.zeros(size, size, self.num_labels, dtype=torch.bool))
        # The longest arcs to a dependent on the left and on the right of its head.
        self.register_buffer("distances", torch.zeros(2, size, size, dtype=torch.long))
        self.labels: torch.Tensor
        self.distances: torch.Tensor

    def observe(self, tokens: TextFieldTensors, gold: Optional[torch.Tensor]) -> None:
        """
        To be called once in every training step, by all workers of a distributed run, which share what they see; not in
        training mode, it does nothing.

        # Parameters

        tokens : `TextFieldTensors`
            Words of the batch.
        gold : `torch.Tensor`, optional
            `(batch, dependents, heads)`, a graph of indices (see `Relations`); `None` if the batch has no graphs.
        """
        if not self.training:
            return
        labels, distances = torch.zeros_like(self.labels), torch.zeros_like(self.distances)
        if gold is not None:
            pos = self._pos(tokens)
            batch, dependents, heads = (gold[:, 1:, 1:] >= 0).nonzero(as_tuple=True)
            pairs = pos[batch, dependents], pos[batch, heads]
            label = Relations.labels(gold[batch, dependents + 1, heads + 1], self.num_labels)
            known = label >= 0
            labels[pairs[0][known], pairs[1][known], label[known]] = True
            for side, lengths in enumerate((heads - dependents, dependents - heads)):
                index = pairs[0] * distances.size(-1) + pairs[1]
                flat = distances[side].view(-1)
                flat.scatter_reduce_(0, index, lengths.clamp(min=0), "amax")
        if is_distributed():
            shared = labels.int()
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            dist.all_reduce(distances, op=dist.ReduceOp.MAX)
            labels = shared.bool()
        self.labels |= labels
        torch.maximum(self.distances, distances, out=self.distances)

    def forward(self, tokens: TextFieldTensors) -> PrunedByPos:
        """
        What is pruned of the sentences `tokens`, with ROOT.
        """
        pos = self._pos(tokens)
        places = torch.arange(pos.size(1), device=pos.device)
        lengths = places.unsqueeze(1) - places.unsqueeze(0)
        pairs = pos.unsqueeze(2), pos.unsqueeze(1)
        left, right = (side[pairs] for side in self.distances)
        # shape: (batch, words, words)
        arcs = (lengths < -left) | (lengths > right)
        labels = ~self.labels[pairs] & ~arcs.unsqueeze(-1)
        # Labels that the vocabulary lacked when the graphs were seen say nothing about the pair.
        labels = labels & self.labels[pairs].any(-1, keepdim=True)
        arcs = torch.nn.functional.pad(arcs, (1, 0, 1, 0))
        return PrunedByPos(arcs, torch.nn.functional.pad(labels, (0, 0, 1, 0, 1, 0)))

    def _pos(self, tokens: TextFieldTensors) -> torch.Tensor:
        if self.indexer not in tokens:
            raise ConfigurationError(
                f"pos_pairs reads the token indexer '{self.indexer}'; the sentences have {', '.join(sorted(tokens))}"
            )
        return tokens[self.indexer]["tokens"]
