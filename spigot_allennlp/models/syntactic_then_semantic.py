from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator

from spigot_allennlp.checks import one_of, refuse_unknown_keys
from spigot_allennlp.data.supervision import GRAPHS, TREES, Supervision
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.metrics import DependencyGraphF1, EnhancedDependencyScores, TreeScores
from spigot_allennlp.models.kept_archives import KeepsArchives
from spigot_allennlp.models.latent_structure_model import LatentStructureModel
from spigot_allennlp.models.readable import readable_graphs, readable_trees
from spigot_allennlp.models.syntactic_parser import ParserState, SyntacticParser, check_tree_pruner, score_trees
from spigot_allennlp.models.vocabularies import check_vocabulary
from spigot_allennlp.modules import (
    ConstantWeight,
    GraphHead,
    ParserHead,
    Relations,
    TextEncoder,
    WeightSchedule,
)
from spigot_allennlp.modules.root import with_root
from spigot_allennlp.modules.word_dropout import no_word_dropout
from spigot_allennlp.structures import LatentStructure, ProjectiveTree
from spigot_allennlp.structures.latent_structure import check_arcs

_SYNTAX = ("latent", "gold", "none")


@Model.register("syntactic_then_semantic")
class SyntacticThenSemantic(KeepsArchives, LatentStructureModel):
    """
    Parses a sentence into a tree, and with the tree into a graph (Peng et al. 2018, section 4.1). The tree is latent:
    what of the graph's loss reaches the syntactic scores, the estimator decides.

    Every word's state is conditioned on its head's (`HeadComposer`); arcs and their labels are then scored by biaffine
    forms. An arc from ROOT marks a top node. An instance's loss is, unless `graph_head.loss` says otherwise, the
    cross-entropy of all its possible arcs, each present or not, plus the cross-entropy of the labels of its gold arcs,
    summed over the sentence:

        loss = mean instance loss + weight * mean syntactic loss

    Trees and graphs may belong to different sentences, in batches of their own (training_configs/
    syntactic_then_semantic/two_corpora.jsonnet): a batch of trees teaches the syntactic part only, a batch of graphs
    both, the syntactic one through the estimator.

    # Parameters

    vocab : `Vocabulary`
        Vocabulary of the model.
    text_field_embedder : `TextFieldEmbedder`
        Embedder of the words.
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        Encoder of the embeddings; `None` uses the embeddings themselves.
    syntax : `str`, optional (default = `"latent"`)
        `"latent"`: a latent tree. `"gold"`: gold trees, also when evaluating. `"none"`: no tree, the rest unchanged.
    syntactic_parser : `Model`, optional (default = `None`)
        A `syntactic_parser` with an encoder of its own; through `from_archive` a pre-trained one. Without it,
        syntax and semantics share this model's encoder.
    frozen_parser : `bool`, optional (default = `False`)
        Whether `syntactic_parser` stays as it is, without dropout.
    syntactic_head : `Lazy[ParserHead]`, optional
        Scorer, loss and pruner of the tree where the encoder is shared: an object with the keys of `ParserHead`. A
        `syntactic_parser` brings its own.
    structure : `LatentStructure`, optional (default = `projective_tree`)
        Structure of the tree.
    estimator : `Estimator`, optional (default = `spigot`)
        Estimator of the gradient for the scores.
    syntactic_loss_weight : `Union[float, WeightSchedule]`, optional (default = `1.0`)
        Weight of the supervised syntactic loss; 0 leaves the tree purely latent. Sentences without a gold tree add
        nothing.
    graph_head : `Lazy[GraphHead]`, optional
        Scorer, loss, pruner and decoder of the graph: an object with the keys of `GraphHead`. The model of its
        pruner is of this type.
    dropout : `float`, optional (default = `0.0`)
        Dropout rate before and after the encoder.
    initializer : `InitializerApplicator`, optional
        Initializer of the parameters.

    # Errors

    `ConfigurationError` for keys that contradict each other, a structure that is not over arcs or that the estimator
    cannot work with, parts from archives that do not fit, and data that lack what `syntax` needs.
    """

    default_predictor = "dependency_graph"

    def __init__(
        self,
        vocab: Vocabulary,
        text_field_embedder: TextFieldEmbedder,
        encoder: Optional[Seq2SeqEncoder] = None,
        syntax: str = "latent",
        syntactic_parser: Optional[Model] = None,
        frozen_parser: bool = False,
        syntactic_head: Optional[Lazy[ParserHead]] = None,
        structure: LatentStructure = None,
        estimator: Estimator = None,
        syntactic_loss_weight: Union[float, WeightSchedule] = 1.0,
        graph_head: Lazy[GraphHead] = Lazy(GraphHead),
        dropout: float = 0.0,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        self.syntax = one_of("syntax", syntax, _SYNTAX)
        self._set_latent(check_arcs(structure or ProjectiveTree()), estimator)
        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        dim = self.text_encoder.get_output_dim()
        self.syntactic_parser = syntactic_parser
        self.frozen_parser = frozen_parser
        self._check_parser()
        self.syntactic_head = None
        if syntax == "latent" and syntactic_parser is None:
            head = syntactic_head or Lazy(ParserHead)
            self.syntactic_head = head.construct(vocab=vocab, input_dim=dim, structure=self.structure)
            check_tree_pruner(vocab, self.syntactic_head.pruner)
        elif syntactic_head is not None:
            raise ConfigurationError(
                "syntactic_head is of no use where no tree is latent, nor beside a syntactic_parser, which has one"
            )
        if frozen_parser:
            self.syntactic_parser.requires_grad_(False)
        if not isinstance(syntactic_loss_weight, WeightSchedule):
            syntactic_loss_weight = ConstantWeight(syntactic_loss_weight)
        self.syntactic_loss_weight = syntactic_loss_weight
        # By a name of its own: AllenNLP would hand `dropout` on to the arc scorer, where a config has its own.
        self.graph_head = graph_head.construct(vocab=vocab, input_dim=dim, label_dropout=dropout)
        self.composer = self.graph_head.composer()
        if syntax == "none":
            # Not in use; distributed training would wait for its gradient.
            self.composer.of_head.requires_grad_(False)
        self._check_graph_pruner()
        self._graph_f1 = DependencyGraphF1()
        self._enhanced_scores = EnhancedDependencyScores()
        self._tree_scores = TreeScores()
        initializer(self)

    def _check_parser(self) -> None:
        parser = self.syntactic_parser
        if parser is None:
            if self.frozen_parser:
                raise ConfigurationError(
                    "frozen_parser needs a syntactic_parser; the shared encoder has none to freeze"
                )
            return
        if self.syntax != "latent":
            raise ConfigurationError(f"syntactic_parser is of no use where syntax is '{self.syntax}'")
        if not isinstance(parser, SyntacticParser):
            raise ConfigurationError(
                f"syntactic_parser is a {type(parser).__name__}; valid: a model of type 'syntactic_parser', or "
                "'from_archive' with the archive of one"
            )
        check_vocabulary(self.vocab, parser.vocab, "syntactic_parser")

    def _check_graph_pruner(self) -> None:
        if self.graph_head.pruner is None:
            return
        model = self.graph_head.pruner.model
        if not isinstance(model, SyntacticThenSemantic) or model.graph_head.graph_loss.joint or model.syntax == "gold":
            raise ConfigurationError(
                f"the model of graph_head.pruner is a {type(model).__name__} whose arcs have no probabilities of their "
                "own; valid: 'from_archive' with the archive of a 'syntactic_then_semantic' that was trained with the "
                "graph_head.loss 'cross_entropy' and predicts the tree or has none"
            )
        check_vocabulary(self.vocab, model.vocab, "graph_head.pruner")

    def train(self, mode: bool = True) -> "SyntacticThenSemantic":
        super().train(mode)
        if self.frozen_parser:
            self.syntactic_parser.eval()
        return self

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
            Gold heads (0 is ROOT, -1 unknown) and relations, `(batch, words)`.
        arc_tags : `torch.Tensor`, optional
            `(batch, words, words)`: the label of the arc from head `h` to dependent `d` at `[d, h]`, -1 where there
            is none.
        tops : `torch.Tensor`, optional
            `(batch, words)`: 1 for top nodes.
        task : `List[str]`, optional
            Name of the corpus from AllenNLP's `multitask` reader; not used, as its fields say what it has.

        # Returns

        `Dict[str, Any]`
            `arc_scores` `(batch, 1 + words, 1 + words)`, with syntax `tree` (what the graph was conditioned on, same
            shape), and `loss` where gold labels are known. Outside training also `labels`, same shape, -1 where there
            is no arc, and with syntax the tree's `heads` and `relations`, `(batch, 1 + words)`. Made human
            readable: `sentence_id`, `words`, `tops`, `arcs` (each with dependent, head, label and probability, or score
            where `graph_loss` is not a likelihood; words count from 1), and with syntax `heads` and `deprels`.
        """
        states, mask = self.text_encoder(tokens)
        words = mask[:, 1:]
        gold_heads = None if head_indices is None else with_root(head_indices, -1, words)
        gold_relations = None if head_tags is None else with_root(head_tags, -1, words)
        gold_graph = None if arc_tags is None else Relations.gold_graph(arc_tags, tops, words)
        self.graph_head.observe(tokens, gold_graph)
        heads, relations, syntactic_loss, tree, pruned = None, None, None, None, None
        if gold_graph is not None or not self.training:
            pruned = self.graph_head.prune(tokens, gold_graph)

        def downstream(tree: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
            return self.graph_head(self.composer(states, tree), mask, gold_graph, pruned)

        if self.syntax == "latent":
            parser = self._parser_head()
            parse = self._score_trees(tokens, states, mask, word_dropout=gold_graph is None)
            scores, loss_scores = parser.prune(parse.scores, tokens, gold_heads)
            if gold_heads is not None:
                syntactic_loss = parser.loss(parse.states, loss_scores, mask, gold_heads, gold_relations)
            if self.training and gold_graph is None:
                # A batch of trees alone: nothing follows, and a frozen parser learns nothing from it.
                return self._output({}, None, metadata, None if self.frozen_parser else syntactic_loss)
            tree, outputs, instance_loss, _ = self._estimate(scores, mask, downstream)
            heads = self._decoded_heads(tree, mask)
            if not self.training:
                relations = parser.predict_relations(parse.states, heads)
            score_trees(self._tree_scores, parser, heads, gold_heads, relations, metadata)
        else:
            if self.syntax == "gold":
                tree = self._gold_tree(gold_heads, words, metadata, states.dtype)
                heads, relations = gold_heads, gold_relations
            outputs = downstream(tree)
            instance_loss = outputs.get("instance_loss")

        if gold_graph is not None:
            self._graph_f1(outputs["arcs"], gold_graph >= 0, outputs["labels_correct"])
        output = self._output(outputs, instance_loss, metadata, syntactic_loss)
        if tree is not None:
            output["tree"] = tree
        if not self.training:
            output["labels"] = self.graph_head.predicted_graph(outputs)
            if gold_graph is not None:
                for edges, entry in zip(self.graph_head.relations.edges(output["labels"]), metadata):
                    self._enhanced_scores(edges, entry["graph"].edges())
            output.update({"heads": heads} if heads is not None else {})
            output.update({"relations": relations} if relations is not None else {})
        return output

    def _parser_head(self) -> ParserHead:
        """The head of the latent tree: of the shared encoder, or of the parser with an encoder of its own."""
        return self.syntactic_head if self.syntactic_parser is None else self.syntactic_parser.syntactic_head

    def _score_trees(
        self, tokens: TextFieldTensors, states: torch.Tensor, mask: torch.Tensor, word_dropout: bool
    ) -> ParserState:
        if self.syntactic_parser is not None:
            return self.syntactic_parser.score(tokens, word_dropout)
        return ParserState(states, mask, self.syntactic_head(states))

    def _output(
        self,
        outputs: Dict[str, torch.Tensor],
        instance_loss: Optional[torch.Tensor],
        metadata: List[Dict[str, Any]],
        syntactic_loss: Optional[torch.Tensor],
    ) -> Dict[str, Any]:
        output: Dict[str, Any] = {"metadata": metadata}
        if "arc_scores" in outputs:
            output["arc_scores"] = outputs["arc_scores"]
        losses = [] if instance_loss is None else [instance_loss.mean()]
        weight = self.syntactic_loss_weight()
        if syntactic_loss is not None and weight > 0:
            losses.append(weight.to(syntactic_loss.dtype) * syntactic_loss.mean())
        if losses:
            output["loss"] = sum(losses)
        elif self.training:
            raise ConfigurationError(
                "a training batch has neither gold graphs nor gold trees with a positive syntactic_loss_weight and no "
                "frozen_parser (to predict, call model.eval() first); "
                f"sentences: {[entry.get('sentence_id') for entry in metadata][:5]}"
            )
        return output

    def score_arcs(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The graph's arc scores `(batch, dependents, heads)` and the mask `(batch, 1 + words)`, for an `ArcPruner`.
        """
        composed, mask = self._composed(tokens)
        return self.graph_head.score(composed, mask).arcs, mask

    def score_labeled_arcs(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The part of `forward` that a larger model uses, with the tree of prediction and without word dropout. The scores
        `(batch, dependents, heads, 1 + labels)` of a `labeled_arc_graph`, -inf for what cannot be, and the mask
        `(batch, 1 + words)`. An arc is in the predicted graph if its best label scores above 0 (as far as no constraint
        on predicates or roles forbids it).
        """
        composed, mask = self._composed(tokens)
        return self.graph_head.part_scores(composed, mask, self.graph_head.prune(tokens, None)), mask

    def _composed(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """The words' states, given the tree of prediction, and their mask."""
        with no_word_dropout(self):
            states, mask = self.text_encoder(tokens)
            tree = None
            if self.syntax == "latent":
                parse = self._score_trees(tokens, states, mask, word_dropout=False)
                scores, _ = self._parser_head().prune(parse.scores, tokens, None)
                tree = self.estimator.evaluation_value(scores, mask, self.structure)
            return self.composer(states, tree), mask

    def _gold_tree(
        self,
        gold_heads: Optional[torch.Tensor],
        words: torch.Tensor,
        metadata: List[Dict[str, Any]],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        if gold_heads is None or (words & (gold_heads[:, 1:] < 0)).any():
            raise ConfigurationError(
                "syntax is 'gold', but these sentences have no gold tree: "
                f"{[entry.get('sentence_id') for entry in metadata][:5]}. Valid: input with trees (CoNLL-U, "
                "or SDP with a companion file), or a model with predicted syntax"
            )
        return arcs_from_heads(gold_heads, dtype)

    def make_output_human_readable(self, output_dict: Dict[str, Any]) -> Dict[str, Any]:
        if "labels" not in output_dict:
            raise ConfigurationError("a training step predicts no labels; to predict, call model.eval() first")
        words = [entry["words"] for entry in output_dict["metadata"]]
        scores = output_dict["arc_scores"]
        joint = self.graph_head.graph_loss.joint
        kind, values = ("score", scores) if joint else ("probability", scores.sigmoid())
        graphs = readable_graphs(output_dict["labels"], self.graph_head.relations, kind, values)
        readable: Dict[str, Any] = {
            "sentence_id": [entry["sentence_id"] for entry in output_dict["metadata"]],
            "words": words,
            "tops": graphs.tops,
            "arcs": graphs.arcs,
        }
        if "heads" in output_dict:
            heads, relations = output_dict["heads"], output_dict.get("relations")
            readable.update(readable_trees(heads, relations, words, Relations(self.vocab, "head_relations")))
        # The loss belongs to a batch: it says nothing about a sentence.
        return readable

    def supervision(self) -> Dict[str, Supervision]:
        """Graphs, and trees where `syntax` is `"gold"` or a syntactic loss counts at any time."""
        needed = {"arc_tags": GRAPHS}
        weights = [float(self.syntactic_loss_weight.weight(torch.tensor(step))) for step in (0, 2**40)]
        if self.syntax == "gold":
            needed["head_indices"] = TREES._replace(instead="another 'syntax' than 'gold'")
        elif self.syntax == "latent" and not self.frozen_parser and max(weights) > 0:
            instead = "'syntactic_loss_weight': 0 for a tree without supervision, or 'syntax': 'none'"
            needed["head_indices"] = TREES._replace(instead=instead, essential=False)
        return needed

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        `labeled_f1` and `unlabeled_f1` of the graph, outside training also `elas` and `eulas`; with latent syntax
        `uas`, `las` and `tree_depth`. Kept off the progress bar by their `_`: precision, recall and exact match, in
        training the estimator's diagnostics, and what pruners leave of the graph (`_pruning_recall`,
        `_pruning_density`) and of the tree (`_syntactic_pruning_...`).
        """
        graph = self._graph_f1.get_metric(reset)
        metrics = {name if name.endswith("_f1") else f"_{name}": value for name, value in graph.items()}
        if not self.training:
            edges = self._enhanced_scores.get_metric(reset)
            metrics.update({name if name in ("elas", "eulas") else f"_{name}": edges[name] for name in edges})
        if self.syntax == "latent":
            metrics.update(self._tree_scores.get_metric(reset))
            pruner = self._parser_head().pruner
            if pruner is not None:
                metrics.update(pruner.get_metrics(reset, prefix="syntactic_"))
            if self.training:
                metrics.update(self._diagnostics.get_metric(reset))
        metrics.update(self.graph_head.get_metrics(reset))
        return metrics
