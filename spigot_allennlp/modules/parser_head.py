from typing import Optional, Tuple

import torch
from allennlp.common import Lazy
from allennlp.data import TextFieldTensors, Vocabulary

from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_pruner import ArcPruner
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.relations import RELATIONS_OFFSET, num_relations, relation_loss
from spigot_allennlp.modules.tree_loss import CrossEntropyTreeLoss, TreeLoss
from spigot_allennlp.structures import LatentStructure, ProjectiveTree


class ParserHead(torch.nn.Module):
    """
    What makes a dependency parser of an encoder: arc scores, relations, and their supervised loss.

    # Parameters

    vocab : `Vocabulary`
    input_dim : `int`
        The encoder's output size.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = biaffine)
    label_namespace : `str`, optional (default = `"head_relations"`)
    label_dim : `int`, optional (default = `64`)
    arc_loss : `TreeLoss`, optional (default = cross-entropy)
    structure : `LatentStructure`, optional (default = `projective_tree`)
        What is parsed; `arc_loss` may ask for it.
    pruner : `ArcPruner`, optional (default = `None`)

    # Errors

    `ConfigurationError` if `arc_loss` needs an operation that `structure` lacks.
    """

    def __init__(
        self,
        vocab: Vocabulary,
        input_dim: int,
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        label_namespace: str = "head_relations",
        label_dim: int = 64,
        arc_loss: TreeLoss = None,
        structure: LatentStructure = None,
        pruner: ArcPruner = None,
    ) -> None:
        super().__init__()
        self.arc_loss = arc_loss or CrossEntropyTreeLoss()
        self.structure = structure or ProjectiveTree()
        self.arc_loss.check(self.structure)
        self.pruner = pruner
        self.label_namespace = label_namespace
        self.arc_scorer = arc_scorer.construct(input_dim=input_dim)
        num_labels = num_relations(vocab, label_namespace)
        self.labeler = ArcLabeler(input_dim, num_labels, label_dim) if num_labels else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """
        `(batch, tokens, input_dim)`, ROOT first, to arc scores `(batch, dependents, heads)`.
        """
        return self.arc_scorer(states)

    def prune(
        self,
        scores: torch.Tensor,
        tokens: TextFieldTensors,
        gold_heads: Optional[torch.Tensor],
        structure: LatentStructure,
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        # Parameters

        scores : `torch.Tensor`
            `(batch, dependents, heads)`.
        tokens : `TextFieldTensors`
        gold_heads : `torch.Tensor`, optional
            `(batch, tokens)`.
        structure : `LatentStructure`
            What is decoded.

        # Returns

        `Tuple[torch.Tensor, torch.Tensor]`
            The scores for inference and those for the loss, where pruned arcs are -inf: see `PrunedArcs`.
        """
        if self.pruner is None:
            return scores, scores
        gold = None if gold_heads is None else arcs_from_heads(gold_heads) > 0
        pruned = self.pruner(tokens, structure, gold)
        return scores.masked_fill(pruned.inference, -torch.inf), scores.masked_fill(pruned.loss, -torch.inf)

    def relations(self, states: torch.Tensor, heads: torch.Tensor) -> Optional[torch.Tensor]:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, input_dim)`.
        heads : `torch.Tensor`
            `(batch, tokens)`, -1 where there is none.

        # Returns

        `torch.Tensor`, optional
            `(batch, tokens)`: the best relation of each word to its head, as an index of the vocabulary, -1 where
            there is no head; `None` if the vocabulary has no relations.
        """
        if self.labeler is None:
            return None
        batch, dependents = (heads >= 0).nonzero(as_tuple=True)
        logits = self.labeler(states, (batch, dependents, heads[batch, dependents]))
        relations = torch.full_like(heads, -1)
        relations[batch, dependents] = logits.argmax(-1) + RELATIONS_OFFSET
        return relations

    def loss(
        self,
        states: torch.Tensor,
        scores: torch.Tensor,
        mask: torch.Tensor,
        gold_heads: torch.Tensor,
        gold_relations: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """
        The loss of the arcs, and the cross-entropy of each word's relation to its gold head, summed over each sentence:
        `(batch,)`. Words whose gold head is -1 do not count.

        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, input_dim)`.
        scores : `torch.Tensor`
            `(batch, dependents, heads)`.
        mask : `torch.Tensor`
            `(batch, tokens)`.
        gold_heads, gold_relations : `torch.Tensor`
            `(batch, tokens)`, ROOT's own position included.
        """
        loss = self.arc_loss(scores, mask, gold_heads, self.structure)
        if self.labeler is None or gold_relations is None:
            return loss
        batch, dependents = (gold_heads >= 0).nonzero(as_tuple=True)
        logits = self.labeler(states, (batch, dependents, gold_heads[batch, dependents]))
        return loss + relation_loss(logits, gold_relations[batch, dependents], batch, len(scores))
