"""The losses `crf`, `sparsemap` and `perturbed` of trees against enumeration."""

import pytest
import torch
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.modules import CrfTreeLoss, PerturbedTreeLoss, SparseMapTreeLoss, TreeLoss
from spigot_allennlp.structures import NonprojectiveTree, ProjectiveTree
from tests.enumeration import Oracle, trees

MASK = torch.tensor([[True] * 4, [True, True, True, False], [True, False, False, False], [False] * 4])
# Nothing is known of the first word of the second sentence.
GOLD_HEADS = torch.tensor([[-1, 3, 3, 0], [-1, -1, 0, -1], [-1] * 4, [-1] * 4])
STRUCTURES = [ProjectiveTree(), NonprojectiveTree(single_root=False)]


def scores_of(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def oracles(scores: torch.Tensor, structure) -> list:
    """Of the first two sentences, with the scores of words without a gold head at 0, and their gold arcs."""
    found = []
    for row, tokens in enumerate((4, 3)):
        vertices = torch.zeros(
            len(trees(tokens, isinstance(structure, ProjectiveTree), structure.single_root)), 4, 4
        ).double()
        vertices[:, :tokens, :tokens] = trees(tokens, isinstance(structure, ProjectiveTree), structure.single_root)
        known = (GOLD_HEADS[row] >= 0).unsqueeze(-1)
        masked = torch.where(known, scores[row], 0.0)
        found.append((Oracle(vertices, masked), masked, arcs_from_heads(GOLD_HEADS)[row].double()))
    return found


def check(loss: torch.Tensor, expected: list, scores: torch.Tensor, gradients: list) -> None:
    torch.testing.assert_close(loss[:2], torch.stack(expected), rtol=0, atol=1e-7)
    assert loss[2:].tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    for row, reference in enumerate(gradients):
        # Words without a gold head get none.
        reference = reference * (GOLD_HEADS[row] >= 0).unsqueeze(-1)
        torch.testing.assert_close(gradient[row], reference, rtol=0, atol=1e-6)
    assert (gradient[2:] == 0).all()


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure._name())
class TestAgainstEnumeration:
    def test_crf(self, structure):
        scores = scores_of().requires_grad_()
        given = oracles(scores.detach(), structure)
        expected = [oracle.log_partition() - (masked * gold).sum() for oracle, masked, gold in given]
        gradients = [oracle.marginals() - gold for oracle, _, gold in given]
        check(CrfTreeLoss()(scores, MASK, GOLD_HEADS, structure), expected, scores, gradients)

    def test_sparsemap(self, structure):
        scores = scores_of().requires_grad_()
        expected, gradients = [], []
        for oracle, masked, gold in oracles(scores.detach(), structure):
            point = oracle.project(masked)
            expected.append((masked * (point - gold)).sum() - (point**2).sum() / 2 + (gold**2).sum() / 2)
            gradients.append(point - gold)
        check(SparseMapTreeLoss()(scores, MASK, GOLD_HEADS, structure), expected, scores, gradients)

    def test_perturbed(self, structure):
        """Against the maximum over all trees with the noise of the seed."""
        scores = scores_of().requires_grad_()
        torch.manual_seed(5)
        loss = PerturbedTreeLoss(num_samples=3, temperature=0.5)(scores, MASK, GOLD_HEADS, structure)
        torch.manual_seed(5)
        noise = 0.5 * torch.randn(3, 4, 4, 4)
        expected, gradients = [], []
        for row, (oracle, masked, gold) in enumerate(oracles(scores.detach(), structure)):
            noisy = [Oracle(oracle.vertices, masked + z.double()) for z in noise[:, row]]
            mean = torch.stack([each.argmax() for each in noisy]).mean(0)
            expected.append(sum(each.scores.max() for each in noisy) / 3 - (masked * gold).sum())
            gradients.append(mean - gold)
        check(loss, expected, scores, gradients)


def test_sparsemap_is_0_beyond_its_margin():
    gold = arcs_from_heads(GOLD_HEADS[:1]).double()
    loss = SparseMapTreeLoss()
    # Two trees differ by two arcs a word: half of the squared distance is 1 for each wrong head.
    assert loss(1.001 * gold, MASK[:1], GOLD_HEADS[:1], ProjectiveTree()).item() == pytest.approx(0.0, abs=1e-9)
    assert loss(0.5 * gold, MASK[:1], GOLD_HEADS[:1], ProjectiveTree()).item() > 1e-3


@pytest.mark.parametrize("name", ["crf", "sparsemap", "perturbed"])
def test_pruned_arcs_and_trees_that_the_structure_lacks(name):
    loss = TreeLoss.by_name(name)()
    scores = torch.zeros(1, 4, 4)
    scores[0, 1, 2] = -torch.inf
    scores.requires_grad_()
    value = loss(scores, MASK[:1], GOLD_HEADS[:1], ProjectiveTree())
    (gradient,) = torch.autograd.grad(value.sum(), scores)
    assert value.isfinite().all() and gradient.isfinite().all() and gradient[0, 1, 2] == 0
    crossing = torch.tensor([[-1, 3, 4, 0, 3]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    assert loss(torch.zeros(1, 5, 5), mask, crossing, ProjectiveTree()).isfinite().all()


@pytest.mark.parametrize("key, value", [("num_samples", 0), ("temperature", 0.0)])
def test_refusals(key, value):
    with pytest.raises(ConfigurationError, match=f"{key} is {value}"):
        PerturbedTreeLoss(**{key: value})


def test_a_structure_that_cannot():
    class NoSums(ProjectiveTree):
        def supports(self, operation: str) -> bool:
            return operation == "argmax"

    with pytest.raises(ConfigurationError, match="CrfTreeLoss needs the operation 'log_partition'.*NoSums"):
        CrfTreeLoss().check(NoSums())
    PerturbedTreeLoss().check(NoSums())
