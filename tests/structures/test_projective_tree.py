import torch

from spigot_allennlp.functional.projective import projective_heads
from spigot_allennlp.functional.sparsemap import projection
from spigot_allennlp.structures import ProjectiveTree
from tests.enumeration import CASES
from tests.structures.tree_test_case import ExactProjectionTestCase, TreeTestCase


class TestProjectiveTree(ExactProjectionTestCase):
    case = CASES["projective_tree"]


class TestMultiRootProjectiveTree(ExactProjectionTestCase):
    case = CASES["projective_tree_multi_root"]


class TestRelaxedProjectiveTree(TreeTestCase):
    case = CASES["projective_tree_relaxed"]


class WrappedTree(ProjectiveTree):
    """The same trees by a function of its own."""

    @staticmethod
    def _best_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        return projective_heads(scores, mask, single_root)


class Chain(ProjectiveTree):
    """Another set of trees: each word but the first hangs on the word before it or on the word after it."""

    projective = None

    @staticmethod
    def _best_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        position = torch.arange(scores.size(1))
        far = (position[:, None] - position).abs() != 1
        return projective_heads(scores.masked_fill(far, -1e6), mask, single_root)


def test_a_subclass_over_the_same_trees_takes_the_compiled_route(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("asked for an argmax in rounds")

    monkeypatch.setattr(projection, "iterate_in_rounds", refuse)
    point, mask = torch.randn(3, 7, 7), torch.ones(3, 7, dtype=torch.bool)
    assert torch.equal(WrappedTree().project(point, mask), ProjectiveTree().project(point, mask))


def test_a_subclass_over_other_trees_is_projected_by_its_argmax():
    torch.manual_seed(0)
    point, mask = torch.randn(4, 5, 5, dtype=torch.float64), torch.ones(4, 5, dtype=torch.bool)
    # From a single root at word 1, everything hangs to the right.
    found = Chain().project(point, mask)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[[1, 2, 3, 4], [0, 1, 2, 3]] = 1
    torch.testing.assert_close(found, expected.expand(4, 5, 5))
    assert not torch.allclose(found, ProjectiveTree().project(point, mask))
