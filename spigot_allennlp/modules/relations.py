"""
Relation labels and the numbers that stand for them.
"""

from typing import Dict, List, Sequence, Tuple

import torch
from allennlp.data import Vocabulary

from spigot_allennlp.data.sentence import ABSENT, PARALLEL, ROOT_LABEL

# AllenNLP's padding and unknown entries come first in a namespace.
_OFFSET = 2


class Relations:
    """
    The relations of one namespace of a vocabulary. Two numbers stand for a relation:

    - its *index* in the vocabulary, which fields, gold labels and outputs have. 0 is padding and 1 a relation that the
      training data lacks: it is never predicted, no loss is computed for it, and it counts as an error;
    - its *label*, the place in the last dimension of scores, from 0.

    A graph is a tensor `(batch, dependents, heads)` of either: -1 where there is no arc. The arcs from ROOT, which mark
    top nodes, have no relation: their index is 0, and so is their label.

    # Parameters

    vocab : `Vocabulary`
        The vocabulary that the relations are from.
    namespace : `str`
        Namespace of the relations.
    """

    def __init__(self, vocab: Vocabulary, namespace: str) -> None:
        self.vocab = vocab
        self.namespace = namespace
        # The vocabulary may grow; the scores do not.
        self.num_labels = max(vocab.get_vocab_size(namespace) - _OFFSET, 0)

    def labels_by_name(self) -> Dict[str, int]:
        """
        The label of each relation of the vocabulary.
        """
        indices = self.vocab.get_token_to_index_vocabulary(self.namespace)
        return {name: index - _OFFSET for name, index in indices.items() if index >= _OFFSET}

    @property
    def last_index(self) -> int:
        return self.vocab.get_vocab_size(self.namespace) - 1

    def name(self, index: int) -> str:
        """
        The relation at an index.
        """
        return self.vocab.get_token_from_index(index, self.namespace)

    def name_of_label(self, label: int) -> str:
        """
        The relation with a label.
        """
        return self.name(label + _OFFSET)

    def names(self, indices: torch.Tensor, lengths: Sequence[int]) -> List[List[str]]:
        """
        # Parameters

        indices : `torch.Tensor`
            `(batch, 1 + words)`; -1 where a word has no head.
        lengths : `Sequence[int]`
            The number of words of each sentence.

        # Returns

        `List[List[str]]`
            The relation of each word of each sentence, `"_"` where it has no head.
        """
        return [
            [self.name(index) if index >= 0 else ABSENT for index in row[1 : length + 1]]
            for row, length in zip(indices.tolist(), lengths)
        ]

    def edges(self, graph: torch.Tensor) -> List[List[Tuple[int, int, str]]]:
        """
        # Parameters

        graph : `torch.Tensor`
            `(batch, 1 + words, 1 + words)`, a graph of indices.

        # Returns

        `List[List[Tuple[int, int, str]]]`
            `(dependent, head, label)` of each edge of each sentence, as `Sentence.edges` has them: parallel edges
            apart, and `root` as the label of edges from ROOT.
        """
        edges: List[List[Tuple[int, int, str]]] = [[] for _ in graph]
        arcs = (graph >= 0).nonzero(as_tuple=True)
        for (sentence, dependent, head), index in zip(torch.stack(arcs, -1).tolist(), graph[arcs].tolist()):
            labels = self.name(index).split(PARALLEL) if head else [ROOT_LABEL]
            edges[sentence].extend((dependent, head, label) for label in labels)
        return edges

    @staticmethod
    def indices(labels: torch.Tensor) -> torch.Tensor:
        """
        Labels to indices of the vocabulary; negative numbers stay.
        """
        return torch.where(labels >= 0, labels + _OFFSET, labels)

    @staticmethod
    def labels(indices: torch.Tensor, num_labels: int) -> torch.Tensor:
        """
        Indices of the vocabulary to labels; -1 for what is not among the `num_labels` relations that are scored:
        unknown ones, and those by which the vocabulary of a pre-trained parser was extended.
        """
        labels = indices - _OFFSET
        return labels.masked_fill((labels < 0) | (labels >= num_labels), -1)

    @classmethod
    def graph_indices(cls, labels: torch.Tensor) -> torch.Tensor:
        """
        A graph of labels to one of indices.
        """
        indices = cls.indices(labels)
        indices[:, :, 0].clamp_(max=0)
        return indices

    @staticmethod
    def gold_graph(arc_tags: torch.Tensor, tops: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """
        # Parameters

        arc_tags : `torch.Tensor`
            `(batch, words, words)`: the index of the arc from head `h` to dependent `d` at `[d, h]`, -1 elsewhere.
        tops : `torch.Tensor`
            `(batch, words)`: 1 for top nodes.
        words : `torch.Tensor`
            `(batch, words)`, the mask.

        # Returns

        `torch.Tensor`
            `(batch, 1 + words, 1 + words)`: a graph of indices.
        """
        # AdjacencyField makes float tensors.
        graph = torch.nn.functional.pad(arc_tags.long(), (1, 0, 1, 0), value=-1)
        graph[:, 1:, 0] = torch.where((tops > 0) & words, 0, -1)
        return graph

    @classmethod
    def loss(cls, logits: torch.Tensor, gold: torch.Tensor, batch: torch.Tensor, batch_size: int) -> torch.Tensor:
        """
        The cross-entropy of the relations of arcs, summed over each sentence.

        # Parameters

        logits : `torch.Tensor`
            `(arcs, labels)`.
        gold : `torch.Tensor`
            `(arcs,)`, indices of the vocabulary; unknown relations do not count.
        batch : `torch.Tensor`
            `(arcs,)`, the sentence of each arc.
        batch_size : `int`
            The number of sentences.

        # Returns

        `torch.Tensor`
            `(batch_size,)`.
        """
        target = cls.labels(gold, logits.size(-1))
        losses = torch.nn.functional.cross_entropy(logits, target, ignore_index=-1, reduction="none")
        return losses.new_zeros(batch_size).index_add(0, batch, losses)
