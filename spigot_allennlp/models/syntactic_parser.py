from typing import Any, Dict, List, NamedTuple, Optional

import torch
from allennlp.common import Lazy
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator

from spigot_allennlp.functional.trees import heads_from_arcs
from spigot_allennlp.metrics import TreeScores
from spigot_allennlp.modules import ArcScorer, BiaffineArcScorer, ParserHead, TextEncoder
from spigot_allennlp.modules.root import with_root
from spigot_allennlp.structures import LatentStructure
from spigot_allennlp.unknown_keys import refuse_unknown_keys


class ParserState(NamedTuple):
    """States with ROOT, their mask, and the scores of the arcs."""

    states: torch.Tensor
    mask: torch.Tensor
    scores: torch.Tensor


@Model.register("syntactic_parser")
class SyntacticParser(Model):
    """
    A graph-based dependency parser (Dozat and Manning 2017): by itself, or as the syntactic part of
    `syntactic_then_semantic`, trained there or loaded with AllenNLP's `from_archive`.

    # Parameters

    vocab : `Vocabulary`
    text_field_embedder : `TextFieldEmbedder`
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
    arc_scorer : `Lazy[ArcScorer]`, optional (default = biaffine)
    structure : `LatentStructure`, optional (default = `projective_tree`)
        What its argmax decodes.
    label_dim : `int`, optional (default = `64`)
        Of the relations.
    dropout : `float`, optional (default = `0.0`)
    initializer : `InitializerApplicator`, optional
    """

    default_predictor = "dependency_graph"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        structure: LatentStructure = None,
        label_dim: int = 64,
        dropout: float = 0.0,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        self.head = ParserHead(vocab, self.text_encoder.get_output_dim(), arc_scorer, label_dim=label_dim)
        self.structure = structure or LatentStructure.by_name(LatentStructure.default_implementation)()
        self._tree_scores = TreeScores()
        initializer(self)

    def score(self, tokens: TextFieldTensors) -> ParserState:
        """
        The part of `forward` that a larger model uses.
        """
        states, mask = self.text_encoder(tokens)
        return ParserState(states, mask, self.head(states))

    def forward(
        self,
        tokens: TextFieldTensors,
        metadata: List[Dict[str, Any]],
        head_indices: torch.Tensor = None,
        head_tags: torch.Tensor = None,
        arc_tags: torch.Tensor = None,
        tops: torch.Tensor = None,
    ) -> Dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
        metadata : `List[Dict[str, Any]]`
        head_indices, head_tags : `torch.Tensor`, optional
            Gold heads (0 is ROOT) and relations, `(batch, words)`.
        arc_tags, tops : `torch.Tensor`, optional
            Of the graphs that may stand beside the trees; not used.

        # Returns

        `Dict[str, Any]`
            `heads` and, if trained on relations, `relations`, `(batch, 1 + words)`; `loss` with gold heads. Made
            human readable: `sentence_id`, `words`, `heads` and `deprels`, lists over the words.
        """
        states, mask, scores = self.score(tokens)
        heads = heads_from_arcs(self.structure.argmax(scores, mask))
        relations = self.head.relations(states, heads)
        output: Dict[str, Any] = {"heads": heads, "metadata": metadata}
        if relations is not None:
            output["relations"] = relations
        if head_indices is not None:
            gold_heads = with_root(head_indices, -1, mask[:, 1:])
            gold_relations = None if head_tags is None else with_root(head_tags, -1, mask[:, 1:])
            self._tree_scores(heads, relations, gold_heads, gold_relations)
            output["loss"] = self.head.loss(states, scores, mask, gold_heads, gold_relations).mean()
        return output

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        words = [entry["words"] for entry in output_dict["metadata"]]
        heads, relations = output_dict["heads"], output_dict.get("relations")
        # The loss is that of a batch: it says nothing about a sentence.
        return {
            "sentence_id": [entry["sentence_id"] for entry in output_dict["metadata"]],
            "words": words,
            **readable_trees(heads, relations, words, self.vocab, self.head.label_namespace),
        }

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        return self._tree_scores.get_metric(reset)


def readable_trees(
    heads: torch.Tensor,
    relations: Optional[torch.Tensor],
    words: List[List[str]],
    vocab: Vocabulary,
    namespace: str,
) -> Dict[str, List[List[Any]]]:
    """
    # Parameters

    heads, relations : `torch.Tensor`
        `(batch, 1 + words)`.
    words : `List[List[str]]`

    # Returns

    `Dict[str, List[List[Any]]]`
        `heads`, and `deprels` where there are relations: for each sentence a list over its words.
    """
    lengths = [len(sentence) for sentence in words]
    trees = {"heads": [row[1 : n + 1] for row, n in zip(heads.tolist(), lengths)]}
    if relations is not None:
        trees["deprels"] = [
            [vocab.get_token_from_index(index, namespace) if index >= 0 else "_" for index in row[1 : n + 1]]
            for row, n in zip(relations.tolist(), lengths)
        ]
    return trees
