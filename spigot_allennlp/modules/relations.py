"""
Relation labels. Their namespaces keep AllenNLP's padding and unknown entries, so that a label which the training data
lacks is indexed as unknown: it is never predicted, no loss is computed for it, and it counts as an error.
"""

import torch
from allennlp.data import Vocabulary

RELATIONS_OFFSET = 2
"""The relations of a namespace begin behind the padding and the unknown entry."""


def num_relations(vocab: Vocabulary, namespace: str) -> int:
    """The number of relations in the vocabulary; 0 if it has none."""
    return max(vocab.get_vocab_size(namespace) - RELATIONS_OFFSET, 0)


def relation_loss(logits: torch.Tensor, gold: torch.Tensor, batch: torch.Tensor, batch_size: int) -> torch.Tensor:
    """
    The cross-entropy of the relations, summed over each sentence.

    # Parameters

    logits : `torch.Tensor`
        `(arcs, relations)`.
    gold : `torch.Tensor`
        `(arcs,)`, indices of the vocabulary; unknown relations do not count, nor those by which the vocabulary of a
        pre-trained parser was extended.
    batch : `torch.Tensor`
        `(arcs,)`, the sentence of each arc.
    batch_size : `int`

    # Returns

    `torch.Tensor`
        `(batch_size,)`.
    """
    target = gold - RELATIONS_OFFSET
    target = target.masked_fill((target < 0) | (target >= logits.size(-1)), -1)
    losses = torch.nn.functional.cross_entropy(logits, target, ignore_index=-1, reduction="none")
    return losses.new_zeros(batch_size).index_add(0, batch, losses)
