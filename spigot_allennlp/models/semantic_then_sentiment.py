import math
from typing import Any, Dict, List, Optional

import torch
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator

from spigot_allennlp.checks import one_of, refuse_unknown_keys
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.metrics import MaskedMean
from spigot_allennlp.models.classifier import LatentStructureClassifier
from spigot_allennlp.models.kept_archives import KeepsArchives
from spigot_allennlp.models.syntactic_then_semantic import SyntacticThenSemantic
from spigot_allennlp.models.vocabularies import check_vocabulary
from spigot_allennlp.modules import GraphComposer, TextEncoder
from spigot_allennlp.structures import LabeledArcGraph, LatentStructure

_GRAPH = ("latent", "none")


@Model.register("semantic_then_sentiment")
class SemanticThenSentiment(KeepsArchives, LatentStructureClassifier):
    """
    Classifies a sentence through its semantic graph (Peng et al. 2018, section 4.2). A parser that was trained on
    graphs scores the arcs; the graph is latent: what of the classifier's loss reaches the scores, and through them the
    parser, the estimator decides.

    The classifier has an encoder of its own. Every word's state is conditioned on its heads and their labels
    (`GraphComposer`); the sum over the words goes through a layer of ReLU. The loss is the mean cross-entropy.

    The parts of the structure score as the parser decodes them: its argmax is the graph that the parser predicts,
    except for constraints on predicates and roles, and for top nodes, which are not arcs between words. Where the
    parser has a tree of its own in between, it is the one of prediction; of the classifier's loss nothing reaches its
    scores, unless it is relaxed.

    A batch with gold graphs or trees in place of labels teaches the parser, by its own loss: what the parser was
    trained on can be interleaved (training_configs/semantic_then_sentiment).

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model, which begins with the parser's.
    text_field_embedder : `TextFieldEmbedder`
        Embedder of the words.
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        Encoder of the embeddings; `None` uses the embeddings themselves.
    graph : `str`, optional (default = `"latent"`)
        `"latent"`, or `"none"`: `v_i = ReLU(b + W_s h_i)`, the rest unchanged. The keys of the graph are then ignored.

    semantic_parser : `Model`, optional (default = `None`)
        A `syntactic_then_semantic`; through `from_archive` a pre-trained one.
    frozen_parser : `bool`, optional (default = `False`)
        Whether the parser stays as it is, without dropout.
    structure : `LatentStructure`, optional (default = `labeled_arc_graph`)
        Structure of the graph; `arc_graph` has arcs without labels.
    estimator : `Estimator`, optional (default = `spigot`)
        Estimator of the gradient for the scores.
    hidden_dim : `int`, optional (default = `100`)
        Size of the words' vectors, and of the layer of ReLU.
    label_dim : `int`, optional (default = `50`)
        Size of the labels' embeddings.
    dropout : `float`, optional (default = `0.5`)
        Dropout before and after the encoder.
    vector_dropout : `float`, optional (default = `0.2`)
        Dropout of the words' vectors, and after the layer of ReLU.
    initializer : `InitializerApplicator`, optional
        Initializer of the parameters.

    # Errors

    `ConfigurationError` for another `graph`, a model that is not a semantic parser, one that needs gold trees or whose
    vocabulary does not fit, another structure or one that the estimator cannot work with, a vocabulary without labels,
    and batches that lack what they need.
    """

    default_predictor = "sentence_classifier"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        graph: str = "latent",
        semantic_parser: Optional[Model] = None,
        frozen_parser: bool = False,
        structure: LatentStructure = None,
        estimator: Estimator = None,
        hidden_dim: int = 100,
        label_dim: int = 50,
        dropout: float = 0.5,
        vector_dropout: float = 0.2,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        self.graph = one_of("graph", graph, _GRAPH)
        self.frozen_parser = frozen_parser
        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        # ROOT is not a word of the sentence, and no word's head here.
        self.text_encoder.root.requires_grad_(False)
        dim = self.text_encoder.get_output_dim()
        self.semantic_parser: Optional[SyntacticThenSemantic] = None
        num_arc_labels = None
        if graph == "latent":
            self.semantic_parser = _checked_parser(semantic_parser, vocab)
            structure = _checked_structure(structure or LabeledArcGraph())
            if structure.labeled:
                num_arc_labels = self.semantic_parser.graph_head.labeler.num_labels
            self._set_latent(structure, estimator)
            if frozen_parser:
                self.semantic_parser.requires_grad_(False)
            self._arcs_per_word = MaskedMean()
        self.composer = GraphComposer(dim, hidden_dim, num_arc_labels, label_dim)
        if graph == "none":
            # Not in use; distributed training would wait for its gradient.
            self.composer.of_heads.requires_grad_(False)
        self.vector_dropout = torch.nn.Dropout(vector_dropout)
        self.classifier = self._label_scorer(hidden_dim, hidden_dim, vector_dropout)
        self._parser_steps = False
        initializer(self)

    def train(self, mode: bool = True) -> "SemanticThenSentiment":
        super().train(mode)
        if self.frozen_parser and self.semantic_parser is not None:
            self.semantic_parser.eval()
        return self

    def forward(
        self,
        tokens: TextFieldTensors,
        metadata: List[Dict[str, Any]],
        parser_tokens: TextFieldTensors = None,
        label: torch.Tensor = None,
        task: List[str] = None,
        head_indices: torch.Tensor = None,
        head_tags: torch.Tensor = None,
        arc_tags: torch.Tensor = None,
        tops: torch.Tensor = None,
    ) -> Dict[str, Any]:
        """
        # Parameters

        tokens : `TextFieldTensors`
            Words as the classifier's embedder takes them; in a batch of graphs or trees, as the parser's does.
        metadata : `List[Dict[str, Any]]`
            Metadata of each instance, as the reader made them.
        parser_tokens : `TextFieldTensors`, optional
            Words of the same sentences, as the parser's embedder takes them.
        label : `torch.Tensor`, optional
            `(batch,)`.
        task : `List[str]`, optional
            Corpus that AllenNLP's `multitask` reader took the batch from; ignored.
        head_indices, head_tags, arc_tags, tops : `torch.Tensor`, optional
            Gold annotation in a batch of graphs or trees: see `SyntacticThenSemantic`.

        # Returns

        `Dict[str, Any]`
            `logits` and `probabilities`, `(batch, labels)`; with a graph, `graph` (what was conditioned on), `(batch,
            1 + words, 1 + words)`, with labeled arcs `(batch, 1 + words, 1 + words, 1 + arc labels)`, the arc first;
            `loss` with labels.
            Made human readable: `words`, `label`, `probabilities` by label, and with a graph `arcs`, each with
            dependent, head and, if it has one, label; words count from 1. For a batch of graphs or trees, `loss` in
            training, else what the parser returns.
        """
        if arc_tags is not None or head_indices is not None:
            return self._parser_step(tokens, metadata, head_indices, head_tags, arc_tags, tops)
        if self.training and label is None:
            raise ConfigurationError("a training batch has neither labels nor gold graphs")
        states, mask = self.text_encoder(tokens)

        def downstream(graph: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
            return self._downstream(states[:, 1:], mask[:, 1:], graph, label)

        graphs: Dict[str, torch.Tensor] = {}
        if self.graph == "latent":
            graph, outputs = self._conditioned(self._scores(parser_tokens, mask), mask, downstream)
            graphs = {"graph": graph}
            self._arcs_per_word(_arcs(graph).sum(-1)[:, 1:], mask[:, 1:])
        else:
            outputs = downstream(None)
        return {**self._classified(outputs, label), "metadata": metadata, **graphs}

    def _parser_step(
        self, tokens: TextFieldTensors, metadata: List[Dict[str, Any]], *gold: Optional[torch.Tensor]
    ) -> Dict[str, Any]:
        if self.semantic_parser is None or self.frozen_parser:
            reason = "graph is 'none'" if self.semantic_parser is None else "frozen_parser is true"
            raise ConfigurationError(
                f"a batch has gold graphs or trees, but {reason}: no parser is there to learn; valid: data with "
                "sentiment alone"
            )
        self._parser_steps = True
        output = self.semantic_parser(tokens, metadata, *gold)
        return {"loss": output["loss"], "metadata": metadata} if self.training else output

    def _scores(self, parser_tokens: Optional[TextFieldTensors], mask: torch.Tensor) -> torch.Tensor:
        """The scores of the structure's parts."""
        if parser_tokens is None:
            raise ConfigurationError(
                "a batch has no 'parser_tokens', which the semantic parser reads; valid: a reader with "
                "'parser_token_indexers', such as 'sst_trees'"
            )
        scores, _ = self.semantic_parser.score_labeled_arcs(parser_tokens)
        # Top nodes are not arcs between words.
        from_root = torch.arange(scores.size(2), device=scores.device) == 0
        scores = scores.masked_fill(from_root.view(1, 1, -1, 1), -torch.inf)
        return scores if self.structure.labeled else (scores[..., :1] + scores[..., 1:]).max(-1).values

    def _downstream(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        graph: Optional[torch.Tensor],
        label: Optional[torch.Tensor],
    ) -> Dict[str, torch.Tensor]:
        """
        `logits`, given a graph; with labels `instance_loss`, `(batch,)`.
        """
        words = torch.relu(self.composer.own(states)) if graph is None else self.composer(states, graph[:, 1:, 1:])
        total = self.vector_dropout(words).masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        return self._with_loss(self.classifier(total), label)

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        if "probabilities" not in output_dict:
            return self.semantic_parser.make_output_human_readable(output_dict)
        words = [entry["words"] for entry in output_dict["metadata"]]
        readable = {"words": words, **super().make_output_human_readable(output_dict)}
        if "graph" in output_dict:
            readable["arcs"] = self._readable_arcs(output_dict["graph"])
        return readable

    def _readable_arcs(self, graph: torch.Tensor) -> List[List[Dict[str, Any]]]:
        """The arcs of a relaxed graph that have more than half of their mass."""
        labels = graph[..., 1:].argmax(-1) if graph.dim() == 4 else None
        values = _arcs(graph)
        arcs: List[List[Dict[str, Any]]] = [[] for _ in graph]
        for sentence, dependent, head in (values > 0.5).nonzero().tolist():
            arc: Dict[str, Any] = {"dependent": dependent, "head": head}
            if labels is not None:
                label = labels[sentence, dependent, head].item()
                arc["label"] = self.semantic_parser.graph_head.relations.name_of_label(label)
            arcs[sentence].append(arc)
        return arcs

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        As of all classifiers, and with a graph `arcs_per_word`; in training, where the parser's own corpus is
        interleaved, also the parser's metrics (`_parser_...`), kept off the progress bar by their `_`.
        """
        metrics = super().get_metrics(reset)
        if self.graph == "latent":
            arcs_per_word = self._arcs_per_word.get_metric(reset)
            if not math.isnan(arcs_per_word):
                metrics["arcs_per_word"] = arcs_per_word
            parsers = self.semantic_parser.get_metrics(reset)
            if self.training and self._parser_steps:
                metrics.update({f"_parser_{name.lstrip('_')}": value for name, value in parsers.items()})
        return metrics


def _arcs(graph: torch.Tensor) -> torch.Tensor:
    """The arcs `(batch, dependents, heads)` of a graph with labels or without."""
    return graph[..., 0] if graph.dim() == 4 else graph


def _checked_structure(structure: LatentStructure) -> LatentStructure:
    dimensions = structure.dimensions[:-1] if structure.labeled else structure.dimensions
    # Arcs from ROOT are forbidden, so that a word has to do without a head.
    if dimensions != LatentStructure.dimensions or structure.competing_dimensions > 0:
        raise ConfigurationError(
            f"structure is {structure._name()}; valid: 'labeled_arc_graph', 'arc_graph', or another one whose parts "
            "are arcs, with or without labels, and that lets a word have none"
        )
    return structure


def _checked_parser(parser: Optional[Model], vocab: Vocabulary) -> SyntacticThenSemantic:
    if parser is None:
        raise ConfigurationError(
            "graph is 'latent', but there is no semantic_parser. Valid: "
            '{"type": "from_archive", "archive_file": <archive of a \'syntactic_then_semantic\'>}, or "graph": "none"'
        )
    if not isinstance(parser, SyntacticThenSemantic):
        raise ConfigurationError(
            f"semantic_parser is a {type(parser).__name__}, which scores no graphs; valid: a model of type "
            "'syntactic_then_semantic', or 'from_archive' with the archive of one"
        )
    if parser.syntax == "gold":
        raise ConfigurationError(
            "semantic_parser was trained with the syntax 'gold', which sentences with sentiment do not have; valid: "
            "one that predicts the tree or has none"
        )
    check_vocabulary(vocab, parser.vocab, "semantic_parser")
    return parser
