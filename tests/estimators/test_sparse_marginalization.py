import torch

from tests.enumeration import Oracle
from tests.estimators.estimator_test_case import (
    STRUCTURES,
    DeterministicEstimatorTestCase,
    Problem,
    assert_same,
    problem,
    run,
)


def sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """By the definition of its threshold, differentiable on its support."""
    ordered = scores.sort(descending=True).values
    sizes = torch.arange(1, len(scores) + 1)
    size = int((1 + sizes * ordered > ordered.cumsum(0)).sum())
    return (scores - (ordered[:size].sum() - 1) / size).clamp(min=0)


def sparsemap_distribution(oracle: Oracle, point: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """The weights of affinely independent `active` vertices whose mean is nearest to the point, by least squares."""
    vertices = active.flatten(1)
    finite = torch.where(oracle._used, point.flatten(), 0.0)
    if len(vertices) == 1:
        return finite.new_ones(1)
    # Of differences to the first vertex.
    basis = (vertices[1:] - vertices[0]).T
    rest = torch.linalg.lstsq(basis, (finite - vertices[0]).unsqueeze(-1)).solution.squeeze(-1)
    return torch.cat([1 - rest.sum()[None], rest])


class SparseMarginalizationTestCase(DeterministicEstimatorTestCase):
    one_point = False

    def distribution(self, given: Problem, row: int, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Structures, and their probabilities as a function of the scores."""
        raise NotImplementedError

    def risk(self, given: Problem, scores: torch.Tensor) -> torch.Tensor:
        values = []
        for row in range(len(scores)):
            structures, q = self.distribution(given, row, scores[row])
            instance = given.on(slice(row, row + 1)).downstream
            losses = torch.cat([instance.instance_loss(z[None]) for z in structures])
            values.append((q * losses).sum())
        return torch.stack(values)

    def expected_gradient(self, given):
        scores = given.scores.clone().requires_grad_()
        return torch.autograd.grad(self.risk(given, scores).sum(), scores)[0]

    def test_value(self):
        for given in self.problems():
            output = run(self.estimator(), given).output
            torch.testing.assert_close(output.instance_loss, self.risk(given, given.scores), rtol=0, atol=1e-7)

    def test_passes_through_the_downstream_model(self, structure_name):
        """As many as the instance of the most structures has, or as `k` says."""
        given = problem(structure_name)
        run(self.estimator(), given)
        most = max(len(self.distribution(given, row, scores)[1]) for row, scores in enumerate(given.scores))
        assert given.downstream.calls == given.downstream.backward_passes == most

    def test_downstream_parameters_learn_as_from_a_plain_forward(self, structure_name):
        """As from that of every structure, by its probability."""
        given = problem(structure_name)
        result = run(self.estimator(), given)
        given.downstream.zero_grad()
        self.risk(given, given.scores).sum().backward()
        for name, p in given.downstream.named_parameters():
            assert_same(result.parameters[name], p.grad)


class TestSparseMap(SparseMarginalizationTestCase):
    params = {"type": "sparse_marginalization"}

    def structures(self, names=STRUCTURES):
        # Its distribution is that of the exact projection, whatever the structure's own.
        kept = super().structures(names)
        return [name for name in kept if names is not STRUCTURES or name != "projective_tree_relaxed"]

    def distribution(self, given, row, scores):
        oracle = given.oracle.case.oracle(scores.detach(), given.oracle.tokens[row])
        # Which vertices are active is not unique, but what they say is: their mean and, there, the loss.
        instance = given.on(slice(row, row + 1))
        structures, q = given.structure.sparse_distribution(instance.scores, instance.mask)
        structures = structures[0][q[0] > 0]
        assert all(oracle.is_vertex(z) for z in structures)
        mean = torch.einsum("k,k...->...", q[0][q[0] > 0], structures)
        torch.testing.assert_close(
            mean, given.oracle.case.project(scores.detach(), given.oracle.tokens[row]), rtol=0, atol=1e-7
        )
        return structures, sparsemap_distribution(oracle, scores, structures)

    def test_sparse(self):
        """With larger scores fewer structures, down to the best one alone."""
        given = problem("nonprojective_tree_multi_root")
        sizes = []
        for factor in (0.1, 1.0, 100.0):
            given.downstream.points.clear()
            run(self.estimator(), given._replace(scores=factor * given.scores))
            sizes.append(given.downstream.calls)
        assert sizes[0] > sizes[1] > sizes[2] == 1


class TestTopK(SparseMarginalizationTestCase):
    params = {"type": "sparse_marginalization", "distribution": "top_k", "k": 3}

    def distribution(self, given, row, scores):
        oracle = given.oracle.case.oracle(scores, given.oracle.tokens[row])
        k = len(oracle.scores) if given.oracle.case.params["type"] == "categorical" else 3
        best = oracle.scores.detach().argsort(descending=True)[:k]
        return oracle.vertices[best], sparsemax(oracle.scores[best])

    def test_exact_for_a_large_k(self):
        """Sparsemax over all structures, once the least of the k has probability 0."""
        given = problem("projective_tree")
        many, all_of_them = run(self.estimator(k=20), given), run(self.estimator(k=100), given)
        torch.testing.assert_close(many.output.instance_loss, all_of_them.output.instance_loss)
        assert_same(many.gradient, all_of_them.gradient)
