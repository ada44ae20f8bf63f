from contextlib import nullcontext
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator

from spigot_allennlp.checks import refuse_unknown_keys
from spigot_allennlp.data.supervision import TREES, Supervision
from spigot_allennlp.functional.trees import heads_from_arcs
from spigot_allennlp.metrics import TreeScores
from spigot_allennlp.models.kept_archives import KeepsArchives
from spigot_allennlp.models.readable import readable_trees
from spigot_allennlp.models.vocabularies import check_vocabulary
from spigot_allennlp.modules import ArcPruner, ParserHead, TextEncoder
from spigot_allennlp.modules.root import with_root
from spigot_allennlp.modules.word_dropout import no_word_dropout
from spigot_allennlp.structures import LatentStructure, ProjectiveTree


class ParserState(NamedTuple):
    """States with ROOT, their mask, and the scores of the arcs."""

    states: torch.Tensor
    mask: torch.Tensor
    scores: torch.Tensor


@Model.register("syntactic_parser")
class SyntacticParser(KeepsArchives):
    """
    A graph-based dependency parser (Dozat and Manning 2017): by itself, or as the syntactic part of
    `syntactic_then_semantic`, trained there or loaded with AllenNLP's `from_archive`.

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model.
    text_field_embedder : `TextFieldEmbedder`
        Embedder of the words.
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        Encoder of the embeddings; `None` uses the embeddings themselves.
    syntactic_head : `Lazy[ParserHead]`, optional
        Scorer, loss and pruner of arcs and relations: an object with the keys of `ParserHead`.
    structure : `LatentStructure`, optional (default = `projective_tree`)
        The structure that is decoded.
    dropout : `float`, optional (default = `0.0`)
        Dropout rate before and after the encoder.
    initializer : `InitializerApplicator`, optional
        Initializer of the parameters.

    # Errors

    `ConfigurationError` for a pruner that is not a `syntactic_parser`, or has another vocabulary.
    """

    default_predictor = "dependency_graph"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        syntactic_head: Lazy[ParserHead] = Lazy(ParserHead),
        structure: LatentStructure = None,
        dropout: float = 0.0,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        self.structure = structure or ProjectiveTree()
        dim = self.text_encoder.get_output_dim()
        self.syntactic_head = syntactic_head.construct(vocab=vocab, input_dim=dim, structure=self.structure)
        check_tree_pruner(vocab, self.syntactic_head.pruner)
        self._tree_scores = TreeScores()
        initializer(self)

    def score(self, tokens: TextFieldTensors, word_dropout: bool = True) -> ParserState:
        """
        The part of `forward` that a larger model uses; before pruning.

        # Parameters

        tokens : `TextFieldTensors`
            Words of the batch.
        word_dropout : `bool`, optional (default = `True`)
            Whether words are dropped, if this model does so in training. Peng et al. (2018) do not where the parser is
            an intermediate layer.
        """
        with nullcontext() if word_dropout else no_word_dropout(self.text_encoder):
            states, mask = self.text_encoder(tokens)
        return ParserState(states, mask, self.syntactic_head(states))

    def score_arcs(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        Arc scores `(batch, dependents, heads)` and the mask `(batch, 1 + words)`, for an `ArcPruner`.
        """
        state = self.score(tokens)
        return state.scores, state.mask

    def forward(
        self,
        tokens: TextFieldTensors,
        metadata: List[Dict[str, Any]],
        head_indices: torch.Tensor = None,
        head_tags: torch.Tensor = None,
        arc_tags: torch.Tensor = None,
        tops: torch.Tensor = None,
        task: List[str] = None,
    ) -> Dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
            Words of the batch.
        metadata : `List[Dict[str, Any]]`
            Metadata of each instance, as the reader made them.
        head_indices, head_tags : `torch.Tensor`, optional
            Gold heads (0 is ROOT) and relations, `(batch, words)`.
        arc_tags, tops : `torch.Tensor`, optional
            Graphs that may stand beside the trees; not used.
        task : `List[str]`, optional
            Name of the corpus from AllenNLP's `multitask` reader; not used.

        # Returns

        `Dict[str, Any]`
            `heads` and, if trained on relations, `relations`, `(batch, 1 + words)`; `loss` with gold heads. Made
            human readable: `sentence_id`, `words`, `heads` and `deprels`, lists over the words.
        """
        states, mask, scores = self.score(tokens)
        gold_heads = None if head_indices is None else with_root(head_indices, -1, mask[:, 1:])
        scores, loss_scores = self.syntactic_head.prune(scores, tokens, gold_heads)
        heads = heads_from_arcs(self.structure.argmax(scores, mask))
        relations = self.syntactic_head.predict_relations(states, heads)
        output: Dict[str, Any] = {"heads": heads, "metadata": metadata}
        if relations is not None:
            output["relations"] = relations
        if gold_heads is not None:
            gold_relations = None if head_tags is None else with_root(head_tags, -1, mask[:, 1:])
            score_trees(self._tree_scores, self.syntactic_head, heads, gold_heads, relations, metadata)
            output["loss"] = self.syntactic_head.loss(states, loss_scores, mask, gold_heads, gold_relations).mean()
        return output

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        words = [entry["words"] for entry in output_dict["metadata"]]
        heads, relations = output_dict["heads"], output_dict.get("relations")
        # The loss belongs to a batch: it says nothing about a sentence.
        return {
            "sentence_id": [entry["sentence_id"] for entry in output_dict["metadata"]],
            "words": words,
            **readable_trees(heads, relations, words, self.syntactic_head.relations),
        }

    def supervision(self) -> Dict[str, Supervision]:
        return {"head_indices": TREES}

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        `uas`, `las` and `tree_depth`; with a pruner `_pruning_recall` and `_pruning_density`.
        """
        metrics = self._tree_scores.get_metric(reset)
        if self.syntactic_head.pruner is not None:
            metrics.update(self.syntactic_head.pruner.get_metrics(reset))
        return metrics


def score_trees(
    metric: TreeScores,
    head: ParserHead,
    heads: torch.Tensor,
    gold_heads: Optional[torch.Tensor],
    relations: Optional[torch.Tensor],
    metadata: List[Dict[str, Any]],
) -> None:
    """
    Counts predicted trees, `(batch, 1 + words)`, against the trees of the sentences in `metadata`. Their relations are
    compared by name, as the vocabulary may lack gold ones.
    """
    names = None if relations is None else head.relations.names(relations, [len(entry["words"]) for entry in metadata])
    metric(heads, gold_heads, names, [entry["graph"].deprels for entry in metadata])


def check_tree_pruner(vocab: Vocabulary, pruner: Optional[ArcPruner]) -> None:
    """
    # Errors

    `ConfigurationError` for a pruner of trees that does not work in a model with this vocabulary.
    """
    key = "syntactic_head.pruner"
    if pruner is None:
        return
    # One archive has the pruners of both, of the graph and of the tree.
    pruner.model = getattr(pruner.model, "syntactic_parser", None) or pruner.model
    if not isinstance(pruner.model, SyntacticParser):
        raise ConfigurationError(
            f"the model of {key} is a {type(pruner.model).__name__}; valid: 'from_archive' with the archive of a "
            "'syntactic_parser', or of a 'syntactic_then_semantic' that has one"
        )
    check_vocabulary(vocab, pruner.model.vocab, key)
