from typing import Optional, Tuple

import torch
from allennlp.common import FromParams, Lazy
from allennlp.data import TextFieldTensors, Vocabulary

from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_pruner import ArcPruner
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.relations import Relations
from spigot_allennlp.modules.tree_loss import CrossEntropyTreeLoss, TreeLoss
from spigot_allennlp.structures import LatentStructure, ProjectiveTree


class ParserHead(torch.nn.Module, FromParams):
    """
    What makes a dependency parser of an encoder: arc scores, relations, and their supervised loss.

    # Parameters

    vocab : `Vocabulary`
        The vocabulary with the relations.
    input_dim : `int`
        Size of the states.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = biaffine)
        Scorer of the arcs.
    loss : `TreeLoss`, optional (default = cross-entropy)
        Supervised loss of the arcs. The loss of their relations is the cross-entropy.
    pruner : `ArcPruner`, optional (default = `None`)
        Pruner of arcs; its model is a `syntactic_parser` that was trained before.
    label_dim : `int`, optional (default = `64`)
        Size of the two ends of an arc where its relation is scored.
    label_namespace : `str`, optional (default = `"head_relations"`)
        Namespace of the relations.
    structure : `LatentStructure`, optional (default = `projective_tree`)
        The structure that is parsed. In a model's config the model has this key.

    # Errors

    `ConfigurationError` if `loss` needs an operation that `structure` lacks.
    """

    def __init__(
        self,
        vocab: Vocabulary,
        input_dim: int,
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        loss: TreeLoss = None,
        pruner: ArcPruner = None,
        label_dim: int = 64,
        label_namespace: str = "head_relations",
        structure: LatentStructure = None,
    ) -> None:
        super().__init__()
        self.arc_loss = loss or CrossEntropyTreeLoss()
        self.structure = structure or ProjectiveTree()
        self.arc_loss.check(self.structure)
        self.pruner = pruner
        self.relations = Relations(vocab, label_namespace)
        self.arc_scorer = arc_scorer.construct(input_dim=input_dim)
        num_labels = self.relations.num_labels
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
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        # Parameters

        scores : `torch.Tensor`
            `(batch, dependents, heads)`.
        tokens : `TextFieldTensors`
            Words of the batch.
        gold_heads : `torch.Tensor`, optional
            `(batch, tokens)`.

        # Returns

        `Tuple[torch.Tensor, torch.Tensor]`
            The scores for inference and those for the loss, where pruned arcs are -inf: see `PrunedArcs`.
        """
        if self.pruner is None:
            return scores, scores
        gold = None if gold_heads is None else arcs_from_heads(gold_heads) > 0
        pruned = self.pruner(tokens, self.structure, gold)
        if pruned.inference is pruned.loss:
            scores = scores.masked_fill(pruned.loss, -torch.inf)
            return scores, scores
        return scores.masked_fill(pruned.inference, -torch.inf), scores.masked_fill(pruned.loss, -torch.inf)

    def predict_relations(self, states: torch.Tensor, heads: torch.Tensor) -> Optional[torch.Tensor]:
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
        relations[batch, dependents] = Relations.indices(logits.argmax(-1))
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
        return loss + Relations.loss(logits, gold_relations[batch, dependents], batch, len(scores))
