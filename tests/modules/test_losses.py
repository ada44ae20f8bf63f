"""Structured hinge losses against the maximum over all trees and graphs."""

from itertools import product
from typing import Iterator, List

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.functional.labeled_graphs import best_graph
from spigot_allennlp.functional.trees import arcs_from_heads, legal_arcs
from spigot_allennlp.modules import CrossEntropyGraphLoss, GraphLoss, HingeGraphLoss, HingeTreeLoss, TreeLoss
from spigot_allennlp.modules.graph_loss import GraphScores, labeled_arcs
from spigot_allennlp.structures import NonprojectiveTree, ProjectiveTree
from tests.enumeration import trees

MASK = torch.tensor([[True] * 4, [True, True, True, False], [True, False, False, False], [False] * 4])
# Of the second sentence's first word nothing is known.
GOLD_HEADS = torch.tensor([[-1, 3, 3, 0], [-1, -1, 0, -1], [-1] * 4, [-1] * 4])


class TestTreeLoss:
    @pytest.mark.parametrize("structure", [ProjectiveTree(), NonprojectiveTree(), ProjectiveTree(single_root=False)])
    @pytest.mark.parametrize("costs", [(0.5, 0.5), (0.4, 0.6), (0.0, 0.0)])
    def test_brute_force(self, structure, costs):
        loss = HingeTreeLoss(*costs)
        for seed in range(10):
            torch.manual_seed(seed)
            scores = torch.randn(4, 4, 4, dtype=torch.double, requires_grad=True)
            found = loss(scores, MASK, GOLD_HEADS, structure)
            assert found.shape == (4,)
            for b, n in enumerate((3, 2)):
                gold = GOLD_HEADS[b].tolist()
                known = [d for d in range(1, n + 1) if gold[d] >= 0]
                candidates = []
                for heads in all_trees(n, structure):
                    wrong = sum(heads[d] != gold[d] for d in known)
                    margin = sum(scores[b, d, heads[d]] - scores[b, d, gold[d]] for d in known)
                    candidates.append(margin + sum(costs) * wrong)
                torch.testing.assert_close(found[b], max(candidates))
            assert found[2:].tolist() == [0.0, 0.0]
            (gradient,) = torch.autograd.grad(found.sum(), scores)
            assert (gradient[0, :, 0] + gradient[0, :, 1:].sum(-1)).abs().max() == 0

    def test_0_beyond_the_margin(self):
        gold = arcs_from_heads(GOLD_HEADS[:1])
        loss = HingeTreeLoss()
        # A wrong head costs 1.
        assert loss(1.001 * gold, MASK[:1], GOLD_HEADS[:1], ProjectiveTree()).item() == 0.0
        assert loss(0.9 * gold, MASK[:1], GOLD_HEADS[:1], ProjectiveTree()).item() > 0.0
        assert loss(1e4 * gold, MASK[:1], GOLD_HEADS[:1], ProjectiveTree()).item() == 0.0

    def test_a_gold_tree_that_the_structure_lacks(self):
        """Its arcs cross."""
        heads = torch.tensor([[-1, 3, 4, 0, 3]])
        mask = torch.ones(1, 5, dtype=torch.bool)
        scores = (5.0 * arcs_from_heads(heads)).requires_grad_()
        loss = HingeTreeLoss()(scores, mask, heads, ProjectiveTree())
        assert loss.item() == 0.0
        assert HingeTreeLoss()(0.1 * scores, mask, heads, ProjectiveTree()).item() > 0.0

    def test_pruned_arcs(self):
        scores = torch.zeros(1, 4, 4)
        scores[0, 1, 2] = -torch.inf
        scores.requires_grad_()
        heads = GOLD_HEADS[:1]
        for name in ("hinge", "cross_entropy"):
            loss = TreeLoss.by_name(name)()(scores, MASK[:1], heads, ProjectiveTree())
            (gradient,) = torch.autograd.grad(loss.sum(), scores)
            assert loss.isfinite().all() and gradient.isfinite().all() and gradient[0, 1, 2] == 0

    @pytest.mark.parametrize("base", [TreeLoss, GraphLoss])
    def test_refusals(self, base):
        with pytest.raises(ConfigurationError, match="false_negative_cost is -1.0; valid: a number >= 0"):
            base.from_params(Params({"type": "hinge", "false_negative_cost": -1.0}))
        with pytest.raises(ConfigurationError, match="hinged not in acceptable choices"):
            base.from_params(Params({"type": "hinged"}))


def all_trees(num_words: int, structure) -> List[List[int]]:
    """The head of each token, -1 for ROOT's."""
    arcs = trees(num_words + 1, isinstance(structure, ProjectiveTree), structure.single_root)
    return [[-1, *heads] for heads in arcs[:, 1:].argmax(-1).tolist()]


def random_scores(num_tokens: int, num_labels: int, with_predicates: bool) -> GraphScores:
    """One sentence."""
    possible = legal_arcs(torch.ones(1, num_tokens, dtype=torch.bool))
    arcs = torch.randn(1, num_tokens, num_tokens, dtype=torch.double).masked_fill(~possible, 0.0)
    labels = torch.randn(1, num_tokens, num_tokens, num_labels, dtype=torch.double, requires_grad=True)
    predicates = torch.randn(1, num_tokens, dtype=torch.double)
    predicates[:, 0] = 0.0
    return GraphScores(
        arcs.requires_grad_(), possible, labels, predicates.requires_grad_() if with_predicates else None
    )


def all_graphs(num_tokens: int, num_labels: int) -> Iterator[torch.Tensor]:
    """`(dependents, heads)` of vocabulary indices as in `GraphLoss`."""
    arcs = [(d, h) for d in range(1, num_tokens) for h in range(num_tokens) if h != d]
    for labels in product(*[[-1, 0] if h == 0 else [-1, *range(2, 2 + num_labels)] for _, h in arcs]):
        graph = torch.full((num_tokens, num_tokens), -1)
        for (d, h), label in zip(arcs, labels):
            graph[d, h] = label
        yield graph


def score(scores: GraphScores, graph: torch.Tensor, with_best_predicates: bool = True) -> torch.Tensor:
    """Of a graph, and of its predicates: the heads of its arcs, or also others if that is better."""
    total = torch.zeros((), dtype=torch.double)
    for d, h in (graph >= 0).nonzero().tolist():
        total = total + scores.arcs[0, d, h] + (scores.labels[0, d, h, graph[d, h] - 2] if h > 0 else 0.0)
    if scores.predicates is not None:
        others = scores.predicates[0].clamp(min=0) if with_best_predicates else torch.zeros_like(scores.predicates[0])
        total = total + torch.where((graph >= 0).any(0), scores.predicates[0], others).sum()
    return total


def cost(graph: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    wrong = graph != gold
    return 0.4 * ((graph >= 0) & wrong).sum() + 0.6 * ((gold >= 0) & wrong).sum()


class TestGraphLoss:
    @pytest.mark.parametrize(
        "num_tokens, num_labels, roles, with_predicates",
        [(3, 2, None, True), (3, 2, None, False), (3, 1, None, True), (4, 1, [True], False), (4, 1, [True], True)],
    )
    def test_brute_force(self, num_tokens, num_labels, roles, with_predicates):
        deterministic = None if roles is None else torch.tensor(roles)
        graphs = [
            graph
            for graph in all_graphs(num_tokens, num_labels)
            if roles is None or ((graph == 2).sum(0)[1:] <= 1).all()
        ]
        positive = 0
        for seed in range(3):
            torch.manual_seed(seed)
            scores = random_scores(num_tokens, num_labels, with_predicates)
            gold = graphs[torch.randint(len(graphs), ()).item()]
            found = HingeGraphLoss()(scores, gold.unsqueeze(0), None, deterministic)
            assert found.shape == (1,)
            margin = score(scores, gold, with_best_predicates=False)
            expected = max(score(scores, graph) - margin + cost(graph, gold) for graph in graphs)
            torch.testing.assert_close(found[0], expected)
            positive += found.item() > 0
            tensors = [tensor for tensor in (scores.arcs, scores.labels, scores.predicates) if tensor is not None]
            for mine, theirs in zip(torch.autograd.grad(found.sum(), tensors), torch.autograd.grad(expected, tensors)):
                # ROOT's score as a predicate is 0, whatever is learned.
                torch.testing.assert_close(mine[:, 1:], theirs[:, 1:])
        assert positive

    def test_costs_in_double_precision(self):
        """Of one arc too many, and of a word whose head is another one."""
        gold = torch.full((1, 2, 2), -1)
        scores = random_scores(2, 1, False)
        arcs = torch.where(scores.possible, -0.25, 0.0).double()
        assert HingeGraphLoss(0.3, 0.7)(scores._replace(arcs=arcs, labels=arcs.unsqueeze(-1)), gold, None).tolist() == [
            0.3 - 0.25
        ]
        tree = torch.zeros(1, 4, 4, dtype=torch.double)
        assert HingeTreeLoss(0.3, 0.0)(tree, MASK[:1], GOLD_HEADS[:1], ProjectiveTree()).item() == 3 * 0.3

    def test_0_beyond_the_margin(self):
        gold = torch.tensor([[[-1, -1, -1], [0, -1, 3], [-1, 2, -1]]])
        possible = legal_arcs(torch.ones(1, 3, dtype=torch.bool))
        # All parts a hundredth beyond: 0.6 for a missing arc, 0.4 for one too many, both for a wrong label.
        arcs = torch.where(gold == 0, 0.61, -0.41).masked_fill(~possible, 0.0)
        labels = torch.zeros(1, 3, 3, 2)
        labels[0, 1, 2, 1] = labels[0, 2, 1, 0] = 1.02
        loss = HingeGraphLoss()
        assert loss(GraphScores(arcs, possible, labels), gold, None).tolist() == [0.0]
        for index, change in [((0, 1, 0), -0.03), ((0, 2, 0), 0.03), ((0, 1, 2), -0.03)]:
            changed = arcs.clone()
            changed[index] += change
            found = loss(GraphScores(changed, possible, labels), gold, None).item()
            assert found == pytest.approx(0.02, abs=1e-6)
        labels[0, 1, 2, 0] = 0.04
        assert loss(GraphScores(arcs, possible, labels), gold, None).item() == pytest.approx(0.02, abs=1e-6)

    @pytest.mark.parametrize("label", [1, 7])
    def test_unknown_labels(self, label):
        """Of the arc, not of its label, the loss says something."""
        torch.manual_seed(0)
        gold = torch.tensor([[[-1, -1, -1], [0, -1, label], [-1, -1, -1]]])
        scores = random_scores(3, 2, False)
        arcs = torch.where(gold >= 0, 10.0, -10.0).double()
        loss = HingeGraphLoss()
        assert loss(scores._replace(arcs=arcs), gold, None).tolist() == [0.0]
        assert loss(scores._replace(arcs=-arcs), gold, None).item() > 20.0

    def test_gold_graphs_that_break_a_constraint(self):
        gold = torch.tensor([[[-1] * 4, [-1] * 4, [-1, 2, -1, -1], [-1, 2, -1, -1]]])
        scores = random_scores(4, 1, False)
        arcs = torch.where(gold >= 0, 10.0, -10.0).double()
        assert HingeGraphLoss()(scores._replace(arcs=arcs), gold, None, torch.tensor([True])).tolist() == [0.0]

    @pytest.mark.parametrize("name", ["hinge", "cross_entropy"])
    def test_sentences_of_a_batch_and_impossible_arcs(self, name):
        """Padding and pruned arcs bring nothing, neither loss nor gradient."""
        torch.manual_seed(0)
        loss = GraphLoss.by_name(name)()
        gold = torch.full((2, 4, 4), -1)
        gold[0, 1, 2] = gold[1, 2, 1] = gold[1, 3, 1] = 3
        gold[:, 1, 0] = 0
        mask = torch.tensor([[True, True, True, False], [True] * 4])
        possible = legal_arcs(mask)
        possible[1, 1, 3] = False
        arcs = torch.randn(2, 4, 4, requires_grad=True)
        labels = torch.randn(2, 4, 4, 2, requires_grad=True)
        predicates = torch.randn(2, 4, requires_grad=True)
        masked = predicates * mask * torch.tensor([0.0, 1.0, 1.0, 1.0])
        scores = GraphScores(arcs.masked_fill(~legal_arcs(mask), 0.0), possible, labels, masked)
        found = loss(scores, gold, labels[labeled_arcs(gold >= 0)])
        of_arcs, of_labels, of_predicates = torch.autograd.grad(found.sum(), (arcs, labels, predicates))
        assert (of_arcs[~possible] == 0).all() and (of_labels[~possible] == 0).all() and of_predicates[0, 3] == 0
        assert of_arcs.any() and of_labels.any() and of_predicates.any()
        alone = GraphScores(scores.arcs[:1, :3, :3], possible[:1, :3, :3], labels[:1, :3, :3], masked[:1, :3])
        gold = gold[:1, :3, :3]
        torch.testing.assert_close(loss(alone, gold, alone.labels[labeled_arcs(gold >= 0)])[0], found[0])

    def test_cross_entropy_of_predicates(self):
        torch.manual_seed(0)
        gold = torch.tensor([[[-1, -1, -1], [0, -1, 2], [-1, -1, -1]]])
        scores = random_scores(3, 1, True)
        logits = scores.labels[labeled_arcs(gold >= 0)]
        loss = CrossEntropyGraphLoss()
        difference = loss(scores, gold, logits) - loss(scores._replace(predicates=None), gold, logits)
        _, first, second = scores.predicates[0]
        torch.testing.assert_close(difference[0], -(-first).sigmoid().log() - second.sigmoid().log())

    def test_decoding_with_cross_entropy_is_that_of_arcs_then_labels(self):
        torch.manual_seed(0)
        scores = random_scores(4, 3, False)
        decoded = best_graph(CrossEntropyGraphLoss().labeled_scores(scores)).labels
        expected = torch.where(scores.arcs > 0, scores.labels.argmax(-1), -1)
        expected[:, :, 0] = torch.where(scores.arcs[:, :, 0] > 0, 0, -1)
        assert torch.equal(decoded, expected)
