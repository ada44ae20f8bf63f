"""A product of structures against the enumeration of all combinations of its factors' structures."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.structures import LatentStructure, NonprojectiveTree, Product
from tests.enumeration import CASES, Oracle

# The factors' sizes, instance by instance: the second has one of two words, and one that is all padding.
SIZES = {
    "nonprojective_tree": [(4, 3), (3, 0), (1, 1)],
    "projective_tree_multi_root": [(3, 4), (0, 0)],
    "arc_graph": [(3, 2), (2, 1)],
    "labeled_arc_graph": [(2, 2), (1, 2)],
    "linear_chain": [(3, 2), (1, 3)],
    "categorical": [(4, 3), (1, 2)],
}


class Given:
    """A batch of products in float64, and an oracle for each instance."""

    def __init__(self, name: str, seed: int = 1, forbid: bool = False) -> None:
        self.case, sizes = CASES[name], SIZES[name]
        self.structure = LatentStructure.from_params(Params({"type": "product", "factor": dict(self.case.params)}))
        width = max(max(pair) for pair in sizes) + 1
        generator = torch.Generator().manual_seed(seed)
        self.scores = torch.randn(len(sizes), 2, *self.case.shape(width), generator=generator, dtype=torch.float64)
        self.vertices = [self._combinations(pair, width) for pair in sizes]
        if forbid:
            kept = torch.stack([vertices[-1] for vertices in self.vertices]) > 0
            drawn = torch.rand(self.scores.shape, generator=generator) < 0.5
            self.scores = self.scores.masked_fill(drawn & ~kept, -torch.inf)
        self.mask = torch.arange(width) < torch.tensor(sizes).unsqueeze(-1)

    def _combinations(self, sizes: Sequence[int], width: int) -> torch.Tensor:
        factors = [self.case.padded(self.case.vertices(tokens), width) for tokens in sizes]
        return torch.stack([torch.stack(pair) for pair in itertools.product(*factors)])

    def oracles(self) -> list[Oracle]:
        return [Oracle(vertices, row) for vertices, row in zip(self.vertices, self.scores)]


@pytest.mark.parametrize("forbid", [False, True], ids=["free", "forbidden"])
@pytest.mark.parametrize("name", SIZES)
class TestAgainstEnumeration:
    def test_values(self, name, forbid):
        given = Given(name, forbid=forbid)
        scores, mask, structure = given.scores, given.mask, given.structure
        best = structure.argmax(scores, mask)
        for parts, oracle in zip(best, given.oracles()):
            assert torch.equal(parts, oracle.argmax())
        expected = [oracle.log_partition() for oracle in given.oracles()]
        torch.testing.assert_close(structure.log_partition(scores, mask), torch.stack(expected))
        expected = [oracle.marginals() for oracle in given.oracles()]
        torch.testing.assert_close(structure.marginals(scores, mask), torch.stack(expected))
        expected = [oracle.best_score() - oracle.log_partition() for oracle in given.oracles()]
        torch.testing.assert_close(structure.log_prob(best, scores, mask), torch.stack(expected))
        entropies = [-torch.special.xlogy(p, p).sum() for p in (o.log_probabilities().exp() for o in given.oracles())]
        torch.testing.assert_close(structure.entropy(scores, mask), torch.stack(entropies))

    @pytest.mark.parametrize("k", [1, 3, 8, 40])
    def test_top_k(self, name, forbid, k):
        given = Given(name, forbid=forbid)
        structures, totals = given.structure.top_k(given.scores, given.mask, k)
        assert structures.shape == (len(given.scores), k, *given.scores.shape[1:])
        for found, total, oracle in zip(structures, totals, given.oracles()):
            torch.testing.assert_close(total, oracle.top_scores(k))
            exists = ~total.isneginf()
            assert len(found[exists].unique(dim=0)) == exists.sum()
            assert all(oracle.is_vertex(parts) for parts in found[exists])
            assert not found[~exists].any()

    def test_project(self, name, forbid):
        given = Given(name, seed=2, forbid=forbid)
        projected = given.structure.project(given.scores, given.mask)
        for row, point, oracle in zip(projected, given.scores, given.oracles()):
            torch.testing.assert_close(row, oracle.project(point), rtol=0, atol=1e-7)

    def test_sample(self, name, forbid):
        torch.manual_seed(3)
        given = Given(name, forbid=forbid)
        samples = given.structure.sample(given.scores, given.mask, 2000)
        assert samples.shape == (2000, *given.scores.shape)
        marginals = given.structure.marginals(given.scores, given.mask)
        torch.testing.assert_close(samples.mean(0), marginals, rtol=0, atol=0.06)
        # The factors are drawn independently of each other.
        joint = torch.einsum("sbp,sbq->bpq", *samples.flatten(3).unbind(2)) / len(samples)
        expected = torch.einsum("bp,bq->bpq", *marginals.flatten(2).unbind(1))
        torch.testing.assert_close(joint, expected, rtol=0, atol=0.06)
        assert all(oracle.is_vertex(parts) for parts, oracle in zip(samples[0], given.oracles()))


@pytest.mark.parametrize("operation", ["log_partition", "marginals", "entropy", "project"])
def test_gradients(operation):
    given = Given("nonprojective_tree")
    function = getattr(given.structure, operation)
    eps = 1e-4 if operation == "project" else 1e-6
    assert torch.autograd.gradcheck(
        lambda scores: function(scores, given.mask), (given.scores.requires_grad_(),), eps=eps, atol=1e-6
    )


def test_all_factors_share_the_loss_of_their_instance():
    """SPIGOT's pull-back of both trees has one `c`, and its norm runs over both."""
    given = Given("nonprojective_tree")
    structure, scores = given.structure, given.scores.requires_grad_()
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def downstream(z: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"instance_loss": (weights * z).flatten(1).sum(-1)}

    estimator = Estimator.from_params(Params({"type": "spigot", "max_gradient_norm": 0.7}))
    estimate = estimator(scores, given.mask, structure, downstream)
    (c := torch.tensor([1.0, 0.25, 3.0]).double()).dot(estimate.instance_loss).backward()
    legal = structure.legal_parts(scores, given.mask)
    clipped = weights * legal
    norms = clipped.flatten(1).norm(dim=-1)
    clipped = clipped * (0.7 / norms.clamp(min=0.7)).view(-1, 1, 1, 1)
    best = structure.argmax(scores, given.mask)
    expected = c.view(-1, 1, 1, 1) * (best - structure.project(best - clipped, given.mask))
    torch.testing.assert_close(scores.grad, expected)
    # Of the first instance, both trees; the others have one structure only.
    assert (scores.grad[0].flatten(1).abs().sum(-1) > 0).all()


class TestRefusals:
    def test_shapes(self):
        structure, scores = Product(NonprojectiveTree()), torch.zeros(2, 2, 3, 3)
        with pytest.raises(ValueError, match=r"takes \(batch, factors, tokens, tokens\)"):
            structure.argmax(scores[0], torch.ones(2, 3, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"mask has shape \(2, 3\)"):
            structure.argmax(scores, torch.ones(2, 3, dtype=torch.bool))
        holes = torch.tensor([[[True, True, True]] * 2, [[True, True, True], [True, False, True]]])
        with pytest.raises(ValueError, match=r"after a false column in rows \[1\]"):
            structure.argmax(scores, holes)

    def test_an_infeasible_factor(self):
        structure, scores = Product(NonprojectiveTree()), torch.zeros(2, 2, 3, 3)
        scores[1, 0, 2] = -torch.inf
        with pytest.raises(ValueError, match=r"rows \[1\] .* leave no 'product' of 'nonprojective_tree'"):
            structure.argmax(scores, torch.ones(2, 2, 3, dtype=torch.bool))

    def test_what_its_factor_does_not_support(self):
        class ArgmaxOnly(LatentStructure):
            def _argmax(self, scores, mask):
                return torch.zeros_like(scores)

        structure = Product(ArgmaxOnly())
        assert structure.supports("argmax") and structure.supports("project")
        assert not structure.supports("marginals")
        with pytest.raises(ConfigurationError, match="needs the operation 'marginals'"):
            Estimator.by_name("marginals")().check(structure)
