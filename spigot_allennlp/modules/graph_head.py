from typing import Dict, List, Optional, Union

import torch
from allennlp.common import FromParams, Lazy
from allennlp.common.checks import ConfigurationError
from allennlp.data import TextFieldTensors, Vocabulary

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.functional.labeled_graphs import best_connected_graph, best_graph
from spigot_allennlp.functional.trees import legal_arcs
from spigot_allennlp.modules.arc_labeler import ArcLabeler
from spigot_allennlp.modules.arc_pruner import ArcPruner, PrunedArcs
from spigot_allennlp.modules.arc_scorer import ArcScorer, BiaffineArcScorer
from spigot_allennlp.modules.deterministic_roles import DeterministicRoles
from spigot_allennlp.modules.graph_loss import CrossEntropyGraphLoss, GraphLoss, GraphScores, labeled_arcs
from spigot_allennlp.modules.predicate_scorer import PredicateScorer
from spigot_allennlp.modules.relations import Relations
from spigot_allennlp.structures import ArcGraph


class GraphHead(torch.nn.Module, FromParams):
    """
    What makes a graph parser of an encoder: scores of arcs, of their labels and of predicates, their supervised loss,
    and decoding. An arc from ROOT marks a top node.

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

    def __init__(
        self,
        vocab: Vocabulary,
        input_dim: int,
        arc_scorer: Lazy[ArcScorer] = Lazy(BiaffineArcScorer),
        loss: GraphLoss = None,
        pruner: ArcPruner = None,
        label_dim: int = 64,
        predicate_dim: int = None,
        deterministic_roles: Union[str, List[str]] = None,
        connected: bool = False,
        label_dropout: float = 0.0,
        label_namespace: str = "arc_relations",
    ) -> None:
        super().__init__()
        self.relations = Relations(vocab, label_namespace)
        self.arc_scorer = arc_scorer.construct(input_dim=input_dim)
        self.labeler = ArcLabeler(input_dim, max(self.relations.num_labels, 1), label_dim, label_dropout)
        self.graph_loss = loss or CrossEntropyGraphLoss()
        self.pruner = pruner
        self.predicate_scorer = None
        if predicate_dim is not None:
            self.predicate_scorer = PredicateScorer(input_dim, at_least_one("predicate_dim", predicate_dim))
        self.deterministic_roles = None
        if deterministic_roles is not None:
            self.deterministic_roles = DeterministicRoles(self.relations, deterministic_roles)
        constrained = predicate_dim is not None or deterministic_roles is not None
        if connected and constrained:
            raise ConfigurationError(
                "connected is true beside predicate_dim or deterministic_roles, but decoding obeys one of them only; "
                "valid: 'connected': false, or neither of the others"
            )
        self.connected = connected
        # Whether arcs and labels are decoded together.
        self._joint = self.graph_loss.joint or constrained

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

    def part_scores(self, states: torch.Tensor, mask: torch.Tensor, pruned: Optional[PrunedArcs]) -> torch.Tensor:
        """
        What is decoded: the scores of a `labeled_arc_graph`, `(batch, dependents, heads, 1 + labels)`; see `GraphLoss`.
        """
        scores = self.score(states, mask, with_labels=True)
        return self.graph_loss.part_scores(scores if pruned is None else scores.without(pruned.inference))

    def prune(self, tokens: TextFieldTensors, gold: Optional[torch.Tensor]) -> Optional[PrunedArcs]:
        """
        # Parameters

        tokens : `TextFieldTensors`
        gold : `torch.Tensor`, optional
            `(batch, dependents, heads)`, a graph of indices (see `Relations`).

        # Returns

        `PrunedArcs`, optional
            `None` without a pruner.
        """
        if self.pruner is None:
            return None
        return self.pruner(tokens, ArcGraph(), None if gold is None else gold >= 0)

    def observe(self, gold: Optional[torch.Tensor]) -> None:
        """
        To be called once for every batch, before it is scored: what is learned from the data as such.
        """
        if self.deterministic_roles is not None:
            self.deterministic_roles.observe(gold)

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        gold: Optional[torch.Tensor] = None,
        pruned: Optional[PrunedArcs] = None,
    ) -> Dict[str, torch.Tensor]:
        """
        # Parameters

        states : `torch.Tensor`
            `(batch, tokens, input_dim)`, ROOT first.
        mask : `torch.Tensor`
            `(batch, tokens)`.
        gold : `torch.Tensor`, optional
            `(batch, dependents, heads)`, a graph of indices (see `Relations`).
        pruned : `PrunedArcs`, optional

        # Returns

        `Dict[str, torch.Tensor]`
            `states`, as given; `arc_scores` and, boolean, the predicted `arcs`, `(batch, dependents, heads)`; where
            arcs and labels are decoded together, `labels`, a graph of indices. With gold graphs `instance_loss`,
            `(batch,)`, and `labels_correct`, `(batch, dependents, heads)`, as `DependencyGraphF1` takes them.
        """
        scores = self.score(states, mask, with_labels=self._joint)
        decoded = scores if pruned is None else scores.without(pruned.inference)
        outputs = {"states": states, "arc_scores": scores.arcs, **self._decode(decoded, mask)}
        if self.graph_loss.joint:
            outputs["arc_scores"] = outputs["arc_scores"].masked_fill(~scores.possible, 0.0)
        if pruned is not None:
            outputs["arc_scores"] = outputs["arc_scores"].masked_fill(pruned.inference, -torch.inf)
        if gold is None:
            return outputs

        gold_arcs = gold >= 0
        index = labeled_arcs(gold_arcs)
        logits = self.labeler(states, index) if scores.labels is None else scores.labels[index]
        predicted = outputs["labels"][index] if self._joint else Relations.indices(logits.detach().argmax(-1))
        # Top nodes, the arcs from ROOT, have no label to get wrong.
        outputs["labels_correct"] = gold_arcs.clone()
        outputs["labels_correct"][index] = predicted == gold[index]
        learned = scores if pruned is None else scores.without(pruned.loss)
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
            What `forward` returned.

        # Returns

        `torch.Tensor`
            `(batch, dependents, heads)`: the predicted graph, of indices (see `Relations`).
        """
        graph = outputs.get("labels")
        if graph is None:
            graph = outputs["arcs"].long() - 1
            index = labeled_arcs(outputs["arcs"])
            graph[index] = Relations.indices(self.labeler(outputs["states"], index).argmax(-1))
        # Where training showed no label at all, that of every arc is unknown.
        return graph.clamp(max=self.relations.last_index)
