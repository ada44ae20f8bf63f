import math
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import torch
from allennlp.common import Lazy, Registrable
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.functional.labeled_graphs import best_connected_graph, best_graph
from spigot_allennlp.functional.trees import legal_arcs
from spigot_allennlp.metrics import MaskedMean
from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_pruner import ArcPruner
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.deterministic_roles import DeterministicRoles
from spigot_allennlp.modules.graph_loss import CrossEntropyGraphLoss, GraphLoss, GraphScores, labeled_arcs
from spigot_allennlp.modules.head_composer import HeadComposer
from spigot_allennlp.modules.pos_pairs import PosPairs
from spigot_allennlp.modules.predicate_scorer import PredicateScorer
from spigot_allennlp.modules.relations import Relations
from spigot_allennlp.structures import ArcGraph


class PrunedGraph(NamedTuple):
    """
    # Parameters

    inference, loss : `Tuple[torch.Tensor, Optional[torch.Tensor]]`
        Arcs and labels that are not considered, as in `PrunedArcs`: boolean arcs `(batch, dependents, heads)`, and
        where labels are pruned, labels `(batch, dependents, heads, labels)`.
    """

    inference: Tuple[torch.Tensor, Optional[torch.Tensor]]
    loss: Tuple[torch.Tensor, Optional[torch.Tensor]]


class GraphHead(torch.nn.Module, Registrable):
    """
    What makes a graph parser of an encoder: scores of arcs, of their labels and of predicates, their supervised loss,
    and decoding. An arc from ROOT marks a top node. This one, registered as `biaffine`, scores labels, and by default
    arcs, by biaffine forms of states that its `composer` conditions on the tree.

    # Parameters

    vocab : `Vocabulary`
        The vocabulary with the graph's labels.
    input_dim : `int`
        Size of the states.
    arc_scorer : `Lazy[ArcScorer]`, optional (default = biaffine)
        Scorer of the arcs.
    loss : `GraphLoss`, optional (default = cross-entropy)
        Supervised loss, and with it the meaning of the scores.
    pruner : `ArcPruner`, optional (default = `None`)
        Pruner of arcs; its model scores graphs, and was trained before by cross-entropy.
    pos_pairs : `Lazy[PosPairs]`, optional (default = `None`)
        Pruner of arcs and labels by parts of speech.
    label_dim : `int`, optional (default = `64`)
        Size of the two ends of an arc where its label is scored.
    predicate_dim : `int`, optional (default = `None`)
        Size of the hidden layer that scores predicates, which arcs need then: see `best_graph`. `None`: predicates have
        no scores.
    deterministic_roles : `Union[str, List[str]]`, optional (default = `None`)
        Labels that a predicate gives to one argument at most, or `"observed"`: those that the training data use so
        (`DeterministicRoles`). `None`: any word may have any label.
    connected : `bool`, optional (default = `False`)
        Whether every word of a predicted graph can be reached from a top node, and so is one or has a head, as enhanced
        Universal Dependencies ask for: the best such graph is decoded (`best_connected_graph`).
    label_dropout : `float`, optional (default = `0.0`)
        Dropout of the two ends of an arc where its label is scored.
    label_namespace : `str`, optional (default = `"arc_relations"`)
        Namespace of the labels.

    # Errors

    `ConfigurationError` for a `predicate_dim` below 1, for roles that are not labels, and for `connected` beside one of
    these.
    """

    default_implementation = "biaffine"

    def __init__(
        self,
        vocab: Vocabulary,
        input_dim: int,
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        loss: GraphLoss = None,
        pruner: ArcPruner = None,
        pos_pairs: Optional[Lazy[PosPairs]] = None,
        label_dim: int = 64,
        predicate_dim: int = None,
        deterministic_roles: Union[str, List[str]] = None,
        connected: bool = False,
        label_dropout: float = 0.0,
        label_namespace: str = "arc_relations",
    ) -> None:
        super().__init__()
        num_labels = self._set_relations(vocab, label_namespace)
        self._input_dim = input_dim
        self.arc_scorer = arc_scorer.construct(input_dim=input_dim)
        self.labeler = ArcLabeler(input_dim, num_labels, label_dim, label_dropout)
        self.predicate_scorer = None
        if predicate_dim is not None:
            self.predicate_scorer = PredicateScorer(input_dim, at_least_one("predicate_dim", predicate_dim))
        self._set_decoding(vocab, loss, pruner, pos_pairs, deterministic_roles, connected)

    def _set_relations(self, vocab: Vocabulary, label_namespace: str) -> int:
        """The number of labels that are scored."""
        self.relations = Relations(vocab, label_namespace)
        return max(self.relations.num_labels, 1)

    def _set_decoding(
        self,
        vocab: Vocabulary,
        loss: Optional[GraphLoss],
        pruner: Optional[ArcPruner],
        pos_pairs: Optional[Lazy[PosPairs]],
        deterministic_roles: Optional[Union[str, List[str]]],
        connected: bool = False,
    ) -> None:
        self.graph_loss = loss or CrossEntropyGraphLoss()
        self.pruner = pruner
        self._pos_recall = MaskedMean()
        self.pos_pairs = None if pos_pairs is None else pos_pairs.construct(vocab=vocab, relations=self.relations)
        self.deterministic_roles = None
        if deterministic_roles is not None:
            self.deterministic_roles = DeterministicRoles(self.relations, deterministic_roles)
        if connected and not (self.predicate_scorer is None and self.deterministic_roles is None):
            raise ConfigurationError(
                "connected is true beside predicate_dim or deterministic_roles, but decoding obeys one of them only; "
                "valid: 'connected': false, or neither of the others"
            )
        self.connected = connected
        constraints = (self.predicate_scorer, self.pos_pairs, self.deterministic_roles)
        # Whether arcs and labels are decoded together.
        self._joint = self.graph_loss.joint or any(constraint is not None for constraint in constraints)

    def composer(self) -> HeadComposer:
        """
        The module that conditions states on the tree, for what this head reads.
        """
        return HeadComposer(self._input_dim)

    def score(self, states: torch.Tensor, mask: torch.Tensor, with_labels: bool = False) -> GraphScores:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, input_dim)`, ROOT first.
        mask : `torch.Tensor`
            `(batch, tokens)`.
        with_labels : `bool`, optional (default = `False`)
            Whether the labels of all pairs of tokens are scored; else `GraphScores.labels` is `None`.
        """
        legal = legal_arcs(mask)
        return GraphScores(
            arcs=self.arc_scorer(states).masked_fill(~legal, 0.0),
            possible=legal,
            labels=self.labeler.all_arcs(states) if with_labels else None,
            predicates=None if self.predicate_scorer is None else self.predicate_scorer(states, mask),
        )

    def part_scores(self, states: torch.Tensor, mask: torch.Tensor, pruned: Optional[PrunedGraph]) -> torch.Tensor:
        """
        What is decoded: the scores of a `labeled_arc_graph`, `(batch, dependents, heads, 1 + labels)`; see `GraphLoss`.
        """
        scores = self.score(states, mask, with_labels=True)
        return self.graph_loss.part_scores(scores if pruned is None else scores.without(*pruned.inference))

    def prune(self, tokens: TextFieldTensors, gold: Optional[torch.Tensor]) -> Optional[PrunedGraph]:
        """
        # Parameters

        tokens : `TextFieldTensors`
            Words of the batch.
        gold : `torch.Tensor`, optional
            `(batch, dependents, heads)`, a graph of indices (see `Relations`).

        # Returns

        `PrunedGraph`, optional
            `None` without a pruner.
        """
        gold_arcs = None if gold is None else gold >= 0
        pruned = None if self.pruner is None else self.pruner(tokens, ArcGraph(), gold_arcs)
        if self.pos_pairs is None:
            return pruned and PrunedGraph((pruned.inference, None), (pruned.loss, None))
        arcs, labels = self.pos_pairs(tokens)
        if gold is None:
            inference = arcs if pruned is None else arcs | pruned.inference
            return PrunedGraph((inference, labels), (inference, labels))
        self._pos_recall(~arcs, gold_arcs)
        # Gold arcs and their labels stay in the loss, which would be infinite otherwise.
        gold_label = Relations.labels(gold, labels.size(-1)).unsqueeze(-1)
        unknown = gold_arcs.unsqueeze(-1) & (gold_label < 0)
        is_gold = unknown | (gold_label == torch.arange(labels.size(-1), device=labels.device))
        loss = arcs & ~gold_arcs, labels & ~is_gold
        inference = loss if self.training else (arcs, labels)
        if pruned is not None:
            loss = loss[0] | pruned.loss, loss[1]
            inference = inference[0] | pruned.inference, inference[1]
        return PrunedGraph(inference, loss)

    def get_metrics(self, reset: bool = False) -> Dict[str, float]:
        """
        What pruners leave: of `ArcPruner`, and `_pos_pruning_recall`, the fraction of gold arcs that `pos_pairs` keeps.
        """
        metrics: Dict[str, float] = {} if self.pruner is None else self.pruner.get_metrics(reset)
        if self.pos_pairs is not None:
            recall = self._pos_recall.get_metric(reset)
            metrics.update({} if math.isnan(recall) else {"_pos_pruning_recall": recall})
        return metrics

    def observe(self, tokens: TextFieldTensors, gold: Optional[torch.Tensor]) -> None:
        """
        To be called once for every batch, before it is scored: what is learned from the data as such.
        """
        if self.deterministic_roles is not None:
            self.deterministic_roles.observe(gold)
        if self.pos_pairs is not None:
            self.pos_pairs.observe(tokens, gold)

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        gold: Optional[torch.Tensor] = None,
        pruned: Optional[PrunedGraph] = None,
    ) -> Dict[str, torch.Tensor]:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, input_dim)`, ROOT first.
        mask : `torch.Tensor`
            `(batch, tokens)`.
        gold : `torch.Tensor`, optional
            `(batch, dependents, heads)`, a graph of indices (see `Relations`).
        pruned : `PrunedGraph`, optional
            Arcs and labels that are not considered.

        # Returns

        `Dict[str, torch.Tensor]`
            `states`, as given; `arc_scores` and, boolean, the predicted `arcs`, `(batch, dependents, heads)`; where
            arcs and labels are decoded together, `labels`, a graph of indices. With gold graphs `instance_loss`,
            `(batch,)`, and `labels_correct`, `(batch, dependents, heads)`, as `DependencyGraphF1` takes them.
        """
        scores = self.score(states, mask, with_labels=self._joint)
        decoded = scores if pruned is None else scores.without(*pruned.inference)
        outputs = {"states": states, "arc_scores": scores.arcs, **self._decode(decoded, mask)}
        if self.graph_loss.joint:
            outputs["arc_scores"] = outputs["arc_scores"].masked_fill(~scores.possible, 0.0)
        if pruned is not None:
            outputs["arc_scores"] = outputs["arc_scores"].masked_fill(pruned.inference[0], -torch.inf)
        if gold is None:
            return outputs

        gold_arcs = gold >= 0
        index = labeled_arcs(gold_arcs)
        learned = scores if pruned is None else scores.without(*pruned.loss)
        logits = self.labeler(states, index) if learned.labels is None else learned.labels[index]
        predicted = outputs["labels"][index] if self._joint else Relations.indices(logits.detach().argmax(-1))
        # Top nodes, the arcs from ROOT, have no label to get wrong.
        outputs["labels_correct"] = gold_arcs.clone()
        outputs["labels_correct"][index] = predicted == gold[index]
        outputs["instance_loss"] = self.graph_loss(learned, gold, logits, self._roles())
        return outputs

    def _decode(self, scores: GraphScores, mask: torch.Tensor) -> Dict[str, torch.Tensor]:
        if not self._joint and self.connected:
            wanted = scores.arcs.detach().masked_fill(~scores.possible, -torch.inf)
            return {"arcs": best_connected_graph(wanted, mask)}
        if not self._joint:
            return {"arcs": (scores.arcs.detach() > 0) & scores.possible}
        # shape: (batch, dependents, heads, labels)
        labeled = self.graph_loss.labeled_scores(scores).detach()
        predicates = None if scores.predicates is None else scores.predicates.detach()
        if self.connected:
            best, labels = labeled.max(-1)
            labels = labels.masked_fill(~best_connected_graph(best, mask), -1)
        else:
            labels = best_graph(labeled, predicates, self._roles()).labels
        decoded = {"labels": Relations.graph_indices(labels), "arcs": labels >= 0}
        if self.graph_loss.joint:
            decoded["arc_scores"] = labeled.max(-1).values
        return decoded

    def _roles(self) -> Optional[torch.Tensor]:
        return None if self.deterministic_roles is None else self.deterministic_roles()

    def predicted_graph(self, outputs: Dict[str, torch.Tensor]) -> torch.Tensor:
        """
        # Parameters

        outputs : `Dict[str, torch.Tensor]`
            Outputs of `forward`.

        # Returns

        `torch.Tensor`
            `(batch, dependents, heads)`: the predicted graph, of indices (see `Relations`).
        """
        graph = outputs.get("labels")
        if graph is None:
            graph = outputs["arcs"].long() - 1
            index = labeled_arcs(outputs["arcs"])
            graph[index] = Relations.indices(self.labeler(outputs["states"], index).argmax(-1))
        # Where training showed no label at all, every arc's label is unknown.
        return graph.clamp(max=self.relations.last_index)


GraphHead.register("biaffine")(GraphHead)
