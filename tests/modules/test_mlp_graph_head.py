"""The published graph parser: perceptrons whose first layers are conditioned on the tree, and pruning by POS."""

import pytest
import torch
from allennlp.common import Lazy, Params
from allennlp.common.checks import ConfigurationError
from allennlp.data import Vocabulary

from spigot_allennlp.modules import (
    GraphHead,
    HingeGraphLoss,
    LinearWeight,
    MlpGraphHead,
    PosPairs,
    Relations,
)
from spigot_allennlp.modules.graph_loss import GraphScores

POS = ("NN", "VB", "DT")
LABELS = ("agent", "patient", "modifier")
NN, VB, DT = range(2, 5)
AGENT, PATIENT, MODIFIER = range(3)


@pytest.fixture
def vocab() -> Vocabulary:
    vocab = Vocabulary()
    for namespace, names in (("pos", POS), ("arc_relations", LABELS)):
        for name in names:
            vocab.add_token_to_namespace(name, namespace)
    return vocab


def test_scores_are_those_of_the_paper(vocab):
    torch.manual_seed(0)
    head = MlpGraphHead(vocab, input_dim=6, hidden_dim=4).double()
    composer = head.composer().double()
    states, mask = torch.randn(1, 4, 6).double(), torch.ones(1, 4, dtype=torch.bool)
    tree = torch.zeros(1, 4, 4).double()
    tree[0, [1, 2, 3], [2, 0, 2]] = 1
    heads = {1: 2, 2: 0, 3: 2}
    scores = head.score(composer(states, tree), mask, with_labels=True)

    def first(end: int, token: int) -> torch.Tensor:
        rows = slice(4 * end, 4 * end + 4)
        layer = composer.own.weight[rows] @ states[0, token] + composer.own.bias[rows]
        return layer + (composer.of_head.weight[rows] @ states[0, heads[token]] if token in heads else 0)

    def perceptron(part: torch.nn.Module, layer: torch.Tensor) -> torch.Tensor:
        (hidden,) = part.layers
        return part.score(hidden(layer.tanh()).tanh())

    for d in range(1, 4):
        for h in range(4):
            if d != h:
                arc = perceptron(head.arc_scorer, first(0, d) + first(1, h))
                torch.testing.assert_close(scores.arcs[0, d, h], arc.squeeze())
                labels = perceptron(head.labeler, first(2, d) + first(3, h))
                torch.testing.assert_close(scores.labels[0, d, h], labels)
        torch.testing.assert_close(scores.predicates[0, d], perceptron(head.predicate_scorer, first(4, d)).squeeze())
    index = torch.tensor([0, 0]), torch.tensor([1, 3]), torch.tensor([2, 1])
    torch.testing.assert_close(head.labeler(composer(states, tree), index), scores.labels[index])
    assert scores.predicates[0, 0] == 0
    assert (scores.arcs[0, 0] == 0).all()


def test_scores_are_bounded_by_the_last_weights(vocab):
    head = GraphHead.from_params(Params({"type": "mlp", "hidden_dim": 4}), vocab=vocab, input_dim=6)
    states = 1e6 * torch.randn(2, 5, 6)
    scores = head.score(head.composer()(states, None), torch.ones(2, 5, dtype=torch.bool), with_labels=True)
    last = head.arc_scorer.score
    assert scores.arcs.abs().max() <= last.weight.abs().sum() + last.bias.abs() + 1e-6


def graph(*arcs) -> torch.Tensor:
    gold = torch.full((1, 6, 6), -1)
    for dependent, head, label in arcs:
        gold[0, dependent, head] = 0 if head == 0 else label + 2
    return gold


def tokens(*pos) -> dict:
    return {"pos": {"tokens": torch.tensor([pos])}}


class TestPosPairs:
    # dogs chase the old cat
    words = tokens(NN, VB, DT, DT, NN)
    gold = graph((2, 0, 0), (1, 2, AGENT), (5, 2, PATIENT), (3, 5, MODIFIER), (4, 5, MODIFIER))

    def pairs(self, vocab: Vocabulary) -> PosPairs:
        return PosPairs(vocab, Relations(vocab, "arc_relations"))

    def test_what_was_never_seen_is_pruned(self, vocab):
        pairs = self.pairs(vocab)
        pairs.observe(self.words, self.gold)
        pruned = pairs(tokens(NN, VB, NN, NN, DT))
        kept = ~pruned.arcs[0]
        kept[range(1, 6), range(1, 6)] = False
        # Nouns depend on verbs, one word to the left of them or three to the right.
        assert kept[1:, 2].tolist() == [True, False, True, True, False]
        assert kept[1:, 4].tolist() == [False] * 4 + [False], "determiners stand on the left"
        assert kept[:, 0].all(), "arcs from ROOT are kept"
        assert pruned.labels[0, 3, 2].tolist() == [False, False, True]
        again = self.pairs(vocab)
        again.load_state_dict(pairs.state_dict())
        assert torch.equal(again(self.words).arcs, pairs(self.words).arcs)

    def test_no_gold_arc_of_what_was_seen_is_pruned(self, vocab):
        pairs = self.pairs(vocab)
        pairs.observe(self.words, self.gold)
        pairs.observe(tokens(VB, NN, NN), None)
        pruned = pairs(self.words)
        index = (self.gold > 0).nonzero(as_tuple=True)
        assert not pruned.arcs[index].any()
        assert not pruned.labels[(*index, Relations.labels(self.gold[index], 3))].any()

    def test_evaluation_teaches_nothing(self, vocab):
        pairs = self.pairs(vocab).eval()
        pairs.observe(self.words, self.gold)
        assert not pairs.labels.any() and not pairs.distances.any()

    def test_in_the_head_gold_arcs_stay_in_the_loss(self, vocab):
        torch.manual_seed(0)
        head = GraphHead.from_params(
            Params({"type": "mlp", "hidden_dim": 4, "loss": "hinge", "pos_pairs": {}}), vocab=vocab, input_dim=6
        )
        head.observe(self.words, self.gold)
        head.eval()
        # Another verb and another order: arcs and labels that were never seen.
        words, gold = tokens(VB, NN, DT, NN, VB), graph((5, 0, 0), (1, 5, AGENT), (2, 5, MODIFIER), (4, 5, AGENT))
        pruned = head.prune(words, gold)
        states, mask = head.composer()(torch.randn(1, 6, 6), None), torch.ones(1, 6, dtype=torch.bool)
        outputs = head(states, mask, gold, pruned)
        assert outputs["instance_loss"].isfinite().all()
        assert not (outputs["arcs"] & pruned.inference[0]).any()
        # Of four arcs those from ROOT, and of a noun to a verb on its right, at distance 1.
        assert head.get_metrics(reset=True) == {"_pos_pruning_recall": 0.5}
        outputs["instance_loss"].sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())

    @pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
    def test_training_considers_no_other_labels(self, vocab, loss):
        head = GraphHead.from_params(
            Params({"type": "mlp", "hidden_dim": 4, "loss": loss, "pos_pairs": {}}), vocab=vocab, input_dim=6
        )
        head.observe(self.words, self.gold)
        pruned = head.prune(self.words, self.gold)
        states, mask = head.composer()(torch.randn(1, 6, 6), None), torch.ones(1, 6, dtype=torch.bool)
        outputs = head(states, mask, self.gold, pruned)
        outputs["instance_loss"].sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
        predicted = (outputs["labels"][:, 1:, 1:] > 0).nonzero(as_tuple=True)
        chosen = Relations.labels(outputs["labels"][:, 1:, 1:][predicted], 3)
        assert head.pos_pairs.labels[
            self.words["pos"]["tokens"][predicted[0], predicted[1]],
            self.words["pos"]["tokens"][predicted[0], predicted[2]],
            chosen,
        ].all()

    def test_bad_input(self, vocab):
        with pytest.raises(ConfigurationError, match="nothing in the namespace 'tags'"):
            PosPairs(vocab, Relations(vocab, "arc_relations"), namespace="tags")
        with pytest.raises(ConfigurationError, match="the token indexer 'pos'; the sentences have lemmas, tokens"):
            self.pairs(vocab)({"tokens": {}, "lemmas": {}})


def test_a_false_positive_cost_that_rises():
    """With costs alone: the loss is what all absent arcs cost."""
    loss = HingeGraphLoss(LinearWeight(start=0.0, end=0.4, num_steps=2))
    scores = GraphScores(torch.zeros(1, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool), torch.zeros(1, 3, 3, 1))
    gold = torch.full((1, 3, 3), -1)
    found = [loss(scores, gold, torch.zeros(0, 1)).item() for _ in range(4)]
    assert found == pytest.approx([0.0, 9 * 0.2, 9 * 0.4, 9 * 0.4])
    loss.eval()
    assert loss(scores, gold, torch.zeros(0, 1)).item() == pytest.approx(9 * 0.4)
    assert Lazy(HingeGraphLoss).construct().false_positive_cost == 0.4
    with pytest.raises(ConfigurationError, match="false_positive_cost is -1"):
        HingeGraphLoss(-1.0)
