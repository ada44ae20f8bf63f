from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from allennlp.common import Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary
from allennlp.models import Model
from allennlp.modules import Seq2SeqEncoder, TextFieldEmbedder
from allennlp.nn import InitializerApplicator

from spigot_allennlp.checks import at_least_one, refuse_unknown_keys
from spigot_allennlp.estimators import Estimator
from spigot_allennlp.functional.labeled_graphs import best_graph
from spigot_allennlp.functional.trees import arcs_from_heads, heads_from_arcs, legal_arcs
from spigot_allennlp.metrics import DependencyGraphF1, EstimatorDiagnostics, TreeScores
from spigot_allennlp.models.kept_archives import KeepsArchives
from spigot_allennlp.models.syntactic_parser import SyntacticParser, check_tree_pruner, readable_trees
from spigot_allennlp.models.vocabularies import check_vocabulary
from spigot_allennlp.modules import (
    ArcLabeler,
    ArcPruner,
    ArcScorer,
    BiaffineArcScorer,
    ConstantWeight,
    CrossEntropyGraphLoss,
    DeterministicRoles,
    GraphLoss,
    HeadComposer,
    ParserHead,
    PredicateScorer,
    TextEncoder,
    TreeLoss,
    WeightSchedule,
)
from spigot_allennlp.modules.arc_pruner import PrunedArcs
from spigot_allennlp.modules.graph_loss import GraphScores, labeled_arcs
from spigot_allennlp.modules.relations import RELATIONS_OFFSET, num_relations
from spigot_allennlp.modules.root import with_root
from spigot_allennlp.modules.word_dropout import no_word_dropout
from spigot_allennlp.structures import ArcGraph, LatentStructure
from spigot_allennlp.structures.latent_structure import check_arcs

_SYNTAX = ("latent", "gold", "none")


@Model.register("syntactic_then_semantic")
class SyntacticThenSemantic(KeepsArchives):
    """
    Parses a sentence into a tree, and with the tree into a graph (Peng et al. 2018, section 4.1). The tree is latent:
    what of the graph's loss reaches the syntactic scores, the estimator decides.

    Every word's state is conditioned on its head's (`HeadComposer`); arcs and their labels are then scored by biaffine
    forms. An arc from ROOT marks a top node. An instance's loss is, unless `graph_loss` says otherwise, the
    cross-entropy of all its possible arcs, each present or not, plus that of the labels of its gold arcs, summed over
    the sentence:

        loss = mean instance loss + weight * mean syntactic loss

    Trees and graphs may be those of different sentences, in batches of their own (training_configs/
    syntactic_then_semantic/two_corpora.jsonnet): a batch of trees teaches the syntactic part only, a batch of graphs
    both, the syntactic one through the estimator.

    # Parameters

    vocab : `Vocabulary`
    text_field_embedder : `TextFieldEmbedder`
    encoder : `Seq2SeqEncoder`, optional (default = `None`)
        `None` uses the embeddings themselves.
    syntax : `str`, optional (default = `"latent"`)
        `"latent"`: a latent tree. `"gold"`: gold trees, also when evaluating. `"none"`: no tree, the rest unchanged.
    syntactic_parser : `Model`, optional (default = `None`)
        A `syntactic_parser` with an encoder of its own; through `from_archive` a pre-trained one. Without it,
        syntax and semantics share this model's encoder.
    frozen_parser : `bool`, optional (default = `False`)
        Whether `syntactic_parser` stays as it is, without dropout.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = biaffine)
        Scores the tree's arcs where the encoder is shared.
    syntactic_loss : `TreeLoss`, optional (default = cross-entropy)
    syntactic_pruner : `ArcPruner`, optional (default = `None`)
        Of the tree's arcs, with a `syntactic_parser` that was trained before. This key and the one above are for a
        shared encoder; a `syntactic_parser` brings its own.
    structure : `LatentStructure`, optional (default = `projective_tree`)
    estimator : `Estimator`, optional (default = `spigot`)
    syntactic_loss_weight : `Union[float, WeightSchedule]`, optional (default = `1.0`)
        Of the supervised syntactic loss; 0 leaves the tree purely latent. Sentences without a gold tree add nothing.
    graph_arc_scorer : `Lazy[ArcScorer]`, optional (default = biaffine)
    graph_loss : `GraphLoss`, optional (default = cross-entropy)
    graph_pruner : `ArcPruner`, optional (default = `None`)
        Of the graph's arcs, with a model of this type that was trained before by cross-entropy.
    predicate_dim : `int`, optional (default = `None`)
        The hidden size of the perceptron that scores predicates, which arcs need then: see `best_graph`. `None`: there
        are no such scores.
    deterministic_roles : `Union[str, List[str]]`, optional (default = `None`)
        The labels of which a predicate has one argument at most, or `"observed"`: those that the training data use so
        (`DeterministicRoles`). `None`: any word may have any label.
    label_dim : `int`, optional (default = `64`)
        Of the graph's labels.
    dropout : `float`, optional (default = `0.0`)
    initializer : `InitializerApplicator`, optional

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
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        structure: LatentStructure = None,
        estimator: Estimator = None,
        syntactic_loss_weight: Union[float, WeightSchedule] = 1.0,
        graph_arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        syntactic_loss: TreeLoss = None,
        syntactic_pruner: ArcPruner = None,
        graph_loss: GraphLoss = None,
        graph_pruner: ArcPruner = None,
        predicate_dim: int = None,
        deterministic_roles: Union[str, List[str]] = None,
        label_dim: int = 64,
        dropout: float = 0.0,
        initializer: InitializerApplicator = InitializerApplicator(),
        **kwargs,
    ) -> None:
        refuse_unknown_keys(self, kwargs)
        super().__init__(vocab, **kwargs)
        if syntax not in _SYNTAX:
            raise ConfigurationError(f"syntax is '{syntax}'; valid: {', '.join(map(repr, _SYNTAX))}")
        self.syntax = syntax
        self.structure = check_arcs(structure or LatentStructure.by_name(LatentStructure.default_implementation)())
        self.estimator = estimator or Estimator.by_name(Estimator.default_implementation)()
        self.estimator.check(self.structure)

        self.text_encoder = TextEncoder(text_field_embedder, encoder, dropout)
        dim = self.text_encoder.get_output_dim()
        self.syntactic_parser = syntactic_parser
        self.frozen_parser = frozen_parser
        self._check_parser()
        # A tree from elsewhere needs no scores.
        shared = syntax == "latent" and syntactic_parser is None
        for key, value in {"syntactic_loss": syntactic_loss, "syntactic_pruner": syntactic_pruner}.items():
            if value is not None and not shared:
                raise ConfigurationError(
                    f"{key} is of no use where no tree is predicted, nor beside a syntactic_parser, whose own keys are "
                    "'loss' and 'pruner'"
                )
        check_tree_pruner(vocab, syntactic_pruner, "syntactic_pruner")
        self.parser_head = (
            ParserHead(
                vocab, dim, arc_scorer, arc_loss=syntactic_loss, structure=self.structure, pruner=syntactic_pruner
            )
            if shared
            else None
        )
        if frozen_parser:
            self.syntactic_parser.requires_grad_(False)
        if not isinstance(syntactic_loss_weight, WeightSchedule):
            syntactic_loss_weight = ConstantWeight(syntactic_loss_weight)
        self.syntactic_loss_weight = syntactic_loss_weight

        self.composer = HeadComposer(dim)
        if syntax == "none":
            # Not in use; distributed training would wait for its gradient.
            self.composer.of_head.requires_grad_(False)
        self.graph_arc_scorer = graph_arc_scorer.construct(input_dim=dim)
        self.label_namespace = "arc_relations"
        self.graph_labeler = ArcLabeler(dim, max(num_relations(vocab, self.label_namespace), 1), label_dim, dropout)
        self.graph_loss = graph_loss or CrossEntropyGraphLoss()
        self.predicate_scorer = None
        if predicate_dim is not None:
            self.predicate_scorer = PredicateScorer(dim, at_least_one("predicate_dim", predicate_dim))
        self.deterministic_roles = None
        if deterministic_roles is not None:
            self.deterministic_roles = DeterministicRoles(vocab, self.label_namespace, deterministic_roles)
        # Whether arcs and labels are decoded together.
        constrained = predicate_dim is not None or deterministic_roles is not None
        self._joint = self.graph_loss.joint or constrained
        self.graph_pruner = graph_pruner
        self._check_graph_pruner()

        self._graph_f1 = DependencyGraphF1()
        self._tree_scores = TreeScores()
        self._diagnostics = EstimatorDiagnostics(self.estimator.diagnostics)
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
        if self.graph_pruner is None:
            return
        model = self.graph_pruner.model
        if not isinstance(model, SyntacticThenSemantic) or model.graph_loss.joint or model.syntax == "gold":
            raise ConfigurationError(
                f"the model of graph_pruner is a {type(model).__name__} whose arcs have no probabilities of their own; "
                "valid: 'from_archive' with the archive of a 'syntactic_then_semantic' that was trained with the "
                "graph_loss 'cross_entropy' and predicts the tree or has none"
            )
        check_vocabulary(self.vocab, model.vocab, "graph_pruner")

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
        metadata : `List[Dict[str, Any]]`
        head_indices, head_tags : `torch.Tensor`, optional
            Gold heads (0 is ROOT, -1 unknown) and relations, `(batch, words)`.
        arc_tags : `torch.Tensor`, optional
            `(batch, words, words)`: the label of the arc from head `h` to dependent `d` at `[d, h]`, -1 where there
            is none.
        tops : `torch.Tensor`, optional
            `(batch, words)`: 1 for top nodes.
        task : `List[str]`, optional
            What AllenNLP's `multitask` reader calls the corpus; not used, as its fields say what it has.

        # Returns

        `Dict[str, Any]`
            `arc_scores` `(batch, 1 + words, 1 + words)`, with syntax `tree` (what the graph was conditioned on, same
            shape), and `loss` where gold labels are known. Outside training also `labels`, same shape, -1 where there
            is no arc, and with syntax the tree's `heads` and `relations`, `(batch, 1 + words)`. Made human readable:
            `sentence_id`, `words`, `tops`, `arcs` (each with dependent, head, label and probability, or score
            where `graph_loss` is no likelihood; words count from 1), and with syntax `heads` and `deprels`.
        """
        states, mask = self.text_encoder(tokens)
        words = mask[:, 1:]
        gold_heads = None if head_indices is None else with_root(head_indices, -1, words)
        gold_relations = None if head_tags is None else with_root(head_tags, -1, words)
        gold_graph = None if arc_tags is None else self._graph_with_root(arc_tags, tops, words)
        if self.deterministic_roles is not None:
            self.deterministic_roles.observe(gold_graph)
        pruned = None
        if self.graph_pruner is not None and (gold_graph is not None or not self.training):
            pruned = self.graph_pruner(tokens, ArcGraph(), None if gold_graph is None else gold_graph >= 0)

        def downstream(tree: Optional[torch.Tensor]) -> Dict[str, torch.Tensor]:
            return self._downstream(states, mask, tree, gold_graph, pruned)

        parser_states, relations, syntactic_loss, tree = states, None, None, None
        if self.syntax == "latent":
            parser_head = self.parser_head
            if self.syntactic_parser is not None:
                parser_head = self.syntactic_parser.head
                intermediate = gold_graph is not None
                parser_states, _, scores = self.syntactic_parser.score(tokens, word_dropout=not intermediate)
            else:
                scores = parser_head(states)
            scores, loss_scores = parser_head.prune(scores, tokens, gold_heads, self.structure)
            if gold_heads is not None:
                syntactic_loss = parser_head.loss(parser_states, loss_scores, mask, gold_heads, gold_relations)
            if self.training and gold_graph is None:
                # A batch of trees alone: nothing follows, and a frozen parser learns nothing from it.
                return self._output({}, None, metadata, None if self.frozen_parser else syntactic_loss)
            estimate = self.estimator(scores, mask, self.structure, downstream)
            tree, outputs, instance_loss = estimate.value, estimate.outputs, estimate.instance_loss
            self._diagnostics(estimate.diagnostics)
            if self.training:
                heads = heads_from_arcs(tree.detach())
            else:
                # Of a relaxed tree, the one that has most of its mass; any other is its own argmax.
                heads = heads_from_arcs(self.structure.argmax(tree, mask))
                relations = parser_head.relations(parser_states, heads)
            self._tree_scores(heads, relations, gold_heads, gold_relations)
        else:
            heads = None
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
            output["labels"] = self._predicted_labels(outputs)
            output.update({"heads": heads} if heads is not None else {})
            output.update({"relations": relations} if relations is not None else {})
        return output

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

    def _downstream(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        tree: Optional[torch.Tensor],
        gold_graph: Optional[torch.Tensor],
        pruned: Optional[PrunedArcs],
    ) -> Dict[str, torch.Tensor]:
        """
        Graph scores, given a tree; with gold graphs `instance_loss`, `(batch,)`.
        """
        composed = self.composer(states, tree)
        scores = self._graph_scores(composed, mask)
        possible = scores.possible if pruned is None else scores.possible & ~pruned.inference
        outputs = {"composed": composed, "arc_scores": scores.arcs}
        if self._joint:
            # shape: (batch, dependents, heads, labels)
            labeled = self.graph_loss.labeled_scores(scores._replace(possible=possible)).detach()
            predicates = None if scores.predicates is None else scores.predicates.detach()
            labels = best_graph(labeled, predicates, self._roles()).labels
            outputs["labels"] = torch.where(labels >= 0, labels + RELATIONS_OFFSET, -1)
            outputs["labels"][:, :, 0].clamp_(max=0)
            outputs["arcs"] = labels >= 0
            if self.graph_loss.joint:
                outputs["arc_scores"] = labeled.max(-1).values.masked_fill(~scores.possible, 0.0)
        else:
            outputs["arcs"] = (scores.arcs.detach() > 0) & possible
        if pruned is not None:
            outputs["arc_scores"] = outputs["arc_scores"].masked_fill(pruned.inference, -torch.inf)
        if gold_graph is None:
            return outputs

        gold_arcs = gold_graph >= 0
        index = labeled_arcs(gold_arcs)
        logits = self.graph_labeler(composed, index) if scores.labels is None else scores.labels[index]
        # Top nodes, the arcs from ROOT, have no label to get wrong.
        outputs["labels_correct"] = gold_arcs.clone()
        predicted = outputs["labels"][index] if self._joint else logits.detach().argmax(-1) + RELATIONS_OFFSET
        outputs["labels_correct"][index] = predicted == gold_graph[index]
        if pruned is not None:
            scores = scores._replace(possible=scores.possible & ~pruned.loss)
        outputs["instance_loss"] = self.graph_loss(scores, gold_graph, logits, self._roles())
        return outputs

    def _graph_scores(self, composed: torch.Tensor, mask: torch.Tensor) -> GraphScores:
        legal = legal_arcs(mask)
        return GraphScores(
            arcs=self.graph_arc_scorer(composed).masked_fill(~legal, 0.0),
            possible=legal,
            labels=self.graph_labeler.all_arcs(composed) if self._joint else None,
            predicates=None if self.predicate_scorer is None else self.predicate_scorer(composed, mask),
        )

    def _roles(self) -> Optional[torch.Tensor]:
        return None if self.deterministic_roles is None else self.deterministic_roles()

    def score_arcs(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The graph's arc scores `(batch, dependents, heads)` and the mask `(batch, 1 + words)`, for an `ArcPruner`.
        """
        composed, mask = self._composed(tokens)
        return self.graph_arc_scorer(composed), mask

    def score_labeled_arcs(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The part of `forward` that a larger model uses, with the tree of prediction and without word dropout. The scores
        `(batch, dependents, heads, labels)` of a `labeled_arc_graph`, -inf for what cannot be, and the mask
        `(batch, 1 + words)`. An arc is in the predicted graph if its best label scores above 0 (as far as no constraint
        on predicates or roles forbids it).
        """
        with no_word_dropout(self):
            composed, mask = self._composed(tokens)
        scores = self._graph_scores(composed, mask)._replace(labels=self.graph_labeler.all_arcs(composed))
        if self.graph_pruner is not None:
            pruned = self.graph_pruner(tokens, ArcGraph(), None)
            scores = scores._replace(possible=scores.possible & ~pruned.inference)
        return self.graph_loss.labeled_scores(scores), mask

    def _composed(self, tokens: TextFieldTensors) -> Tuple[torch.Tensor, torch.Tensor]:
        """The words' states, given the tree of prediction, and their mask."""
        states, mask = self.text_encoder(tokens)
        tree = None
        if self.syntax == "latent":
            head, parser_states = self.parser_head, states
            if self.syntactic_parser is not None:
                head, parser_states = self.syntactic_parser.head, self.syntactic_parser.score(tokens).states
            scores, _ = head.prune(head(parser_states), tokens, None, self.structure)
            tree = self.estimator.evaluation_value(scores, mask, self.structure)
        return self.composer(states, tree), mask

    def _predicted_labels(self, outputs: Dict[str, torch.Tensor]) -> torch.Tensor:
        """`(batch, 1 + words, 1 + words)`: -1 without an arc, 0 for top nodes, else an index of the vocabulary."""
        if self._joint:
            labels = outputs["labels"]
        else:
            labels = outputs["arcs"].long() - 1
            index = labeled_arcs(outputs["arcs"])
            labels[index] = self.graph_labeler(outputs["composed"], index).argmax(-1) + RELATIONS_OFFSET
        # Where training showed no label at all, that of every arc is unknown.
        return labels.clamp(max=self.vocab.get_vocab_size(self.label_namespace) - 1)

    def _graph_with_root(self, arc_tags: torch.Tensor, tops: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """
        `(batch, 1 + words, 1 + words)`: labels of arcs, 0 for the arcs from ROOT to top nodes, -1 elsewhere.
        """
        # AdjacencyField makes float tensors.
        graph = torch.nn.functional.pad(arc_tags.long(), (1, 0, 1, 0), value=-1)
        graph[:, 1:, 0] = torch.where((tops > 0) & words, 0, -1)
        return graph

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
        kind, values = ("score", scores) if self.graph_loss.joint else ("probability", scores.sigmoid())
        arcs: List[List[Dict[str, Any]]] = [[] for _ in words]
        tops: List[List[int]] = [[] for _ in words]
        labels = output_dict["labels"]
        index = (labels >= 0).nonzero(as_tuple=True)
        for (sentence, dependent, head), label, value in zip(
            torch.stack(index, -1).tolist(), labels[index].tolist(), values[index].tolist()
        ):
            if head == 0:
                tops[sentence].append(dependent)
                continue
            name = self.vocab.get_token_from_index(label, self.label_namespace)
            arcs[sentence].append(
                {
                    "dependent": dependent,
                    "head": head,
                    "label": name,
                    kind: round(value, 4),
                }
            )
        readable: Dict[str, Any] = {
            "sentence_id": [entry["sentence_id"] for entry in output_dict["metadata"]],
            "words": words,
            "tops": tops,
            "arcs": arcs,
        }
        if "heads" in output_dict:
            heads, relations = output_dict["heads"], output_dict.get("relations")
            readable.update(readable_trees(heads, relations, words, self.vocab, "head_relations"))
        # The loss is that of a batch: it says nothing about a sentence.
        return readable

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        `labeled_f1` and `unlabeled_f1` of the graph; with predicted syntax `uas`, `las` and `tree_depth`. Kept off the
        progress bar by their `_`: precision, recall and exact match, in training the estimator's diagnostics, and what
        pruners leave of the graph (`_pruning_recall`, `_pruning_density`) and of the tree (`_syntactic_pruning_...`).
        """
        graph = self._graph_f1.get_metric(reset)
        metrics = {name if name.endswith("_f1") else f"_{name}": value for name, value in graph.items()}
        if self.syntax == "latent":
            metrics.update(self._tree_scores.get_metric(reset))
            head = self.parser_head if self.syntactic_parser is None else self.syntactic_parser.head
            if head.pruner is not None:
                metrics.update(head.pruner.get_metrics(reset, prefix="syntactic_"))
            if self.training:
                metrics.update(self._diagnostics.get_metric(reset))
        if self.graph_pruner is not None:
            metrics.update(self.graph_pruner.get_metrics(reset))
        return metrics
