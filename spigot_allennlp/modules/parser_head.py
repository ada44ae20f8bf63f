from typing import Optional

import torch
from allennlp.common import Lazy
from allennlp.data import Vocabulary

from spigot_allennlp.functional.trees import arcs_from_heads, legal_arcs
from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.relations import RELATIONS_OFFSET, num_relations, relation_loss


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
    """

    def __init__(
        self,
        vocab: Vocabulary,
        input_dim: int,
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        label_namespace: str = "head_relations",
        label_dim: int = 64,
    ) -> None:
        super().__init__()
        self.label_namespace = label_namespace
        self.arc_scorer = arc_scorer.construct(input_dim=input_dim)
        num_labels = num_relations(vocab, label_namespace)
        self.labeler = ArcLabeler(input_dim, num_labels, label_dim) if num_labels else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """
        `(batch, tokens, input_dim)`, ROOT first, to arc scores `(batch, dependents, heads)`.
        """
        return self.arc_scorer(states)

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
        Cross-entropy of each word's gold head among all heads, and of its relation, summed over each sentence:
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
        log_probs = scores.masked_fill(~legal_arcs(mask), -torch.inf)
        known = gold_heads >= 0
        # A row without any legal head would give NaN.
        log_probs = log_probs.masked_fill(~known.unsqueeze(-1), 0.0).log_softmax(-1)
        gold = arcs_from_heads(gold_heads, scores.dtype)
        loss = -torch.where(gold > 0, log_probs, 0.0).flatten(1).sum(-1)
        if self.labeler is None or gold_relations is None:
            return loss
        batch, dependents = known.nonzero(as_tuple=True)
        logits = self.labeler(states, (batch, dependents, gold_heads[batch, dependents]))
        return loss + relation_loss(logits, gold_relations[batch, dependents], batch, len(scores))
