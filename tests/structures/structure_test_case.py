"""
The template suite of `LatentStructure`: a new structure gets all of it by subclassing `StructureTestCase` and
naming its case of `tests.enumeration`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Optional

import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from spigot_allennlp import structures as package
from spigot_allennlp.structures import LatentStructure
from spigot_allennlp.structures.latent_structure import LARGEST_SUMMED_TOTAL
from tests.enumeration import Case, Oracle

OPERATIONS = ("argmax", "log_partition", "marginals", "entropy", "log_prob", "sample", "top_k", "project")

# The operations that map scores and mask to parts.
PARTS_OPERATIONS = ("argmax", "marginals", "project")


class Problem(NamedTuple):
    """A batch, described: see `StructureTestCase.batch`."""

    tokens: tuple[int, ...]
    padding: int
    style: str
    seed: int


STYLES = ("normal", "ties", "huge", "huge_ties", "shifted", "forbidden", "huge_forbidden")


def problems(max_examples: int = 9, styles: tuple[str, ...] = STYLES) -> Callable:
    """Run a test with several `problem`s: lengths, padding, kinds of scores. Every run draws the same."""
    strategy = st.builds(
        Problem,
        tokens=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
        padding=st.integers(0, 2),
        style=st.sampled_from(styles),
        seed=st.integers(0, 10_000),
    )

    def decorate(test: Callable) -> Callable:
        configured = settings(
            max_examples=max_examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
        )
        return configured(given(problem=strategy)(test))

    return decorate


def draw_scores(case: Case, tokens: int, width: int, style: str, generator: torch.Generator) -> torch.Tensor:
    """
    One instance's scores, padded to `width`; what stands at parts that do not exist is drawn like the rest.
    """
    shape = case.shape(width)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    if "ties" in style:
        scores = scores.round().clamp(-1, 1)
    if "huge" in style:
        scores = scores * 1e4
    if style == "shifted":
        # One constant a row: for each dependent, for each position; for `categorical` there is one row.
        rows = shape[:1] + (1,) * (len(shape) - 1) if len(shape) > 1 else (1,)
        scores = scores + 1e4 * torch.randn(rows, generator=generator, dtype=torch.float64)
    if "forbidden" in style:
        vertices = case.padded(case.vertices(tokens), width)
        kept = vertices[torch.randint(len(vertices), (), generator=generator)] > 0
        forbidden = torch.rand(shape, generator=generator) < 0.5
        scores = scores.masked_fill(forbidden & ~kept, -float("inf"))
    return scores


class StructureTestCase:
    """
    # Parameters (class attributes)

    case : `Case`
        The configuration and the enumeration.
    """

    case: Case

    num_samples = 4
    k = 3

    @property
    def structure(self) -> LatentStructure:
        return LatentStructure.from_params(Params(dict(self.case.params)))

    # --------------------------------------------------------------------------------------- inputs

    def batch(self, problem: Problem, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, list]:
        """The scores in `dtype`, the mask, and each instance's number of tokens."""
        tokens = [
            min(max(number, self.case.min_tokens), self.case.max_tokens) if number else 0 for number in problem.tokens
        ]
        width = max(1, max(tokens) + problem.padding)
        generator = torch.Generator().manual_seed(problem.seed)
        scores = torch.stack([draw_scores(self.case, number, width, problem.style, generator) for number in tokens])
        return scores.to(dtype), self.mask(tokens, width), tokens

    @staticmethod
    def mask(tokens: list[int], width: int) -> torch.Tensor:
        return torch.arange(width) < torch.tensor(tokens)[:, None]

    def fixed_batch(self, style: str = "normal", dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple:
        """The largest instance that is enumerated, a smaller one, an all-padding one, all padded by one."""
        top = self.case.max_tokens
        return self.batch(Problem((top, 0, max(1, top - 2), top - 1), 1, style, seed), dtype)

    def oracles(self, scores: torch.Tensor, tokens: list[int]) -> list[Oracle]:
        return [self.case.oracle(row, number) for row, number in zip(scores, tokens, strict=True)]

    def operations(self, scores: torch.Tensor, mask: Optional[torch.Tensor]) -> dict[str, Callable[[], Any]]:
        """Every operation as a call without arguments; `log_prob` is that of the best structure."""
        structure = self.structure
        return {
            "argmax": lambda: structure.argmax(scores, mask),
            "log_partition": lambda: structure.log_partition(scores, mask),
            "marginals": lambda: structure.marginals(scores, mask),
            "entropy": lambda: structure.entropy(scores, mask),
            "log_prob": lambda: structure.log_prob(structure.argmax(scores, mask), scores, mask),
            "sample": lambda: structure.sample(scores, mask, self.num_samples),
            "top_k": lambda: structure.top_k(scores, mask, self.k),
            "project": lambda: structure.project(scores, mask),
        }

    def differentiable(self, mask: torch.Tensor) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        structure = self.structure
        return {
            "log_partition": lambda scores: structure.log_partition(scores, mask),
            "marginals": lambda scores: structure.marginals(scores, mask),
            "entropy": lambda scores: structure.entropy(scores, mask),
            "log_prob": lambda scores: structure.log_prob(structure.argmax(scores.detach(), mask), scores, mask),
            "project": lambda scores: structure.project(scores, mask),
        }

    # --------------------------------------------------------------------------------------- values

    @problems()
    def test_legal_parts_are_what_the_feasible_structures_use(self, problem):
        scores, mask, tokens = self.batch(problem)
        legal = self.structure.legal_parts(scores, mask)
        assert legal.dtype == torch.bool and legal.shape == scores.shape
        for row, number in zip(legal, tokens, strict=True):
            assert torch.equal(row, self.case.legal(number, mask.size(1)))

    @problems(14)
    def test_argmax_is_a_best_vertex(self, problem):
        scores, mask, tokens = self.batch(problem)
        best = self.structure.argmax(scores, mask)
        assert best.shape == scores.shape and best.dtype == scores.dtype
        for row, structure, oracle in zip(scores, best, self.oracles(scores, tokens), strict=True):
            assert oracle.is_vertex(structure)
            assert row[structure > 0].sum().item() == pytest.approx(oracle.best_score(), rel=1e-9, abs=1e-9)

    @problems(styles=("ties", "huge_ties"))
    def test_ties_are_broken_the_same_way_everywhere(self, problem):
        """The same in a second call, alone, in another place of the batch, and beside more padding."""
        scores, mask, tokens = self.batch(problem)
        best = self.structure.argmax(scores, mask)
        assert torch.equal(best, self.structure.argmax(scores, mask))
        assert torch.equal(best.flip(0), self.structure.argmax(scores.flip(0), mask.flip(0)))
        for row, structure, number in zip(scores, best, tokens, strict=True):
            if number:
                alone = self.structure.argmax(
                    self.case.compact(row, number)[None], torch.ones(1, number, dtype=torch.bool)
                )
                assert torch.equal(alone[0], self.case.compact(structure, number))

    def test_all_scores_equal(self):
        """The tie of ties: a vertex, uniform probabilities."""
        scores, mask, tokens = self.fixed_batch()
        scores = torch.zeros_like(scores)
        best = self.structure.argmax(scores, mask)
        log_partition = self.structure.log_partition(scores, mask)
        for structure, value, number, oracle in zip(
            best, log_partition, tokens, self.oracles(scores, tokens), strict=True
        ):
            assert oracle.is_vertex(structure)
            assert value.item() == pytest.approx(math.log(len(self.case.vertices(number))), abs=1e-12)

    @problems(14)
    def test_log_partition(self, problem):
        scores, mask, tokens = self.batch(problem)
        value = self.structure.log_partition(scores, mask)
        expected = torch.stack([oracle.log_partition() for oracle in self.oracles(scores, tokens)])
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-9)

    @problems(14)
    def test_marginals(self, problem):
        scores, mask, tokens = self.batch(problem)
        marginals = self.structure.marginals(scores, mask)
        expected = torch.stack([oracle.marginals() for oracle in self.oracles(scores, tokens)])
        torch.testing.assert_close(marginals, expected, rtol=0, atol=1e-9)
        assert (marginals >= 0).all() and (marginals <= 1 + 1e-9).all()

    @problems(14)
    def test_entropy(self, problem):
        scores, mask, tokens = self.batch(problem)
        value = self.structure.entropy(scores, mask)
        for entropy, oracle in zip(value, self.oracles(scores, tokens), strict=True):
            log_probabilities = oracle.log_probabilities()
            # 0 log 0 = 0
            expected = -torch.special.xlogy(log_probabilities.exp(), log_probabilities.exp()).sum()
            assert entropy.item() == pytest.approx(expected.item(), abs=1e-7)

    @problems()
    def test_log_prob_of_every_structure(self, problem):
        scores, mask, tokens = self.batch(problem)
        oracles = self.oracles(scores, tokens)
        for index in range(max(len(oracle.vertices) for oracle in oracles))[:12]:
            chosen = [index % len(oracle.vertices) for oracle in oracles]
            parts = torch.stack([oracle.vertices[i] for oracle, i in zip(oracles, chosen, strict=True)])
            expected = torch.stack([oracle.log_probabilities()[i] for oracle, i in zip(oracles, chosen, strict=True)])
            torch.testing.assert_close(self.structure.log_prob(parts, scores, mask), expected, rtol=1e-10, atol=1e-8)

    def test_log_prob_of_a_forbidden_structure_is_minus_infinity(self):
        scores, mask, tokens = self.fixed_batch()
        best = self.structure.argmax(scores, mask)
        # Forbid one part of the first instance's best structure: others remain.
        vertices = self.case.padded(self.case.vertices(tokens[0]), mask.size(1))
        avoidable = (best[0] > 0) & (vertices == 0).any(0)
        scores[0][tuple(avoidable.nonzero()[0])] = -float("inf")
        log_prob = self.structure.log_prob(best, scores, mask)
        assert log_prob[0] == -float("inf")
        assert log_prob[1:].isfinite().all()

    @problems(styles=("normal", "ties", "huge", "forbidden", "shifted"))
    def test_top_k(self, problem):
        scores, mask, tokens = self.batch(problem)
        k = (1, 2, 3, 7, 20)[problem.seed % 5]
        structures, values = self.structure.top_k(scores, mask, k)
        assert structures.shape == (len(scores), k, *scores.shape[1:]) and structures.dtype == scores.dtype
        assert values.shape == (len(scores), k) and values.dtype == scores.dtype
        for row, found, value, oracle in zip(scores, structures, values, self.oracles(scores, tokens), strict=True):
            expected = oracle.top_scores(k)
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-9)
            existing = int((expected > -float("inf")).sum())
            assert len({tuple(structure.flatten().tolist()) for structure in found[:existing]}) == existing
            for structure, score in zip(found[:existing], value, strict=False):
                assert oracle.is_vertex(structure)
                assert row[structure > 0].sum().item() == pytest.approx(score.item(), rel=1e-9, abs=1e-9)
            assert (found[existing:] == 0).all()

    def test_the_best_of_top_k_is_the_argmax(self):
        scores, mask, _ = self.fixed_batch()
        structures, _ = self.structure.top_k(scores, mask, 2)
        assert torch.equal(structures[:, 0], self.structure.argmax(scores, mask))

    def test_top_k_of_everything(self):
        """As many as there are, and two more: each exactly once."""
        scores, mask, tokens = self.batch(Problem((3, 2), 0, "normal", 0))
        most = max(len(self.case.vertices(number)) for number in tokens)
        structures, values = self.structure.top_k(scores, mask, most + 2)
        for found, value, number in zip(structures, values, tokens, strict=True):
            existing = len(self.case.vertices(number))
            assert value[:existing].isfinite().all() and (value[existing:] == -float("inf")).all()
            distinct = {tuple(structure.flatten().tolist()) for structure in found[:existing]}
            assert len(distinct) == existing
            assert (found[existing:] == 0).all()

    @problems(14)
    def test_project(self, problem):
        points, mask, tokens = self.batch(problem)
        projection = self.structure.project(points, mask)
        assert projection.shape == points.shape and projection.dtype == points.dtype
        for row, found, number in zip(points, projection, tokens, strict=True):
            torch.testing.assert_close(found, self.case.project(row, number), rtol=0, atol=1e-6)

    @problems(14, styles=("normal", "ties", "forbidden"))
    def test_project_next_to_a_vertex_as_spigot_does(self, problem):
        """`Proj(z - eta g)` for steps of all sizes; -inf points forbid the part."""
        scores, mask, tokens = self.batch(problem)
        vertex = self.structure.argmax(scores, mask)
        step = 10.0 ** (problem.seed % 4 - 2)
        gradient = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        points = torch.where(scores.isinf(), scores, vertex - step * gradient)
        projection = self.structure.project(points, mask)
        for row, found, number in zip(points, projection, tokens, strict=True):
            torch.testing.assert_close(found, self.case.project(row, number), rtol=0, atol=1e-6)

    def test_project_leaves_the_polytope_alone(self):
        """Vertices and marginals are their own projections."""
        scores, mask, _ = self.fixed_batch()
        for point in (self.structure.argmax(scores, mask), self.structure.marginals(scores, mask)):
            torch.testing.assert_close(self.structure.project(point, mask), point, rtol=0, atol=1e-7)

    # ------------------------------------------------------------------------------------- sampling

    @pytest.mark.parametrize("style", ["normal", "forbidden"])
    def test_sample_frequencies(self, style):
        """Chi-squared over the structures themselves, not just over the parts."""
        torch.manual_seed(3)
        number = 3000
        scores, mask, tokens = self.batch(Problem((4, 3, 2), 1, style, 5))
        samples = self.structure.sample(scores, mask, number)
        assert samples.shape == (number, *scores.shape) and samples.dtype == scores.dtype
        assert not samples.requires_grad
        for index, oracle in enumerate(self.oracles(scores, tokens)):
            codes = {tuple(v.flatten().tolist()): i for i, v in enumerate(oracle.vertices)}
            observed = torch.zeros(len(codes), dtype=torch.float64)
            for sample in samples[:, index].flatten(1).tolist():
                # A KeyError here: the sample is no vertex, or one of probability 0.
                observed[codes[tuple(sample)]] += 1
            expected = oracle.log_probabilities().exp() * number
            # Rare structures count as one.
            rare = expected < 5
            observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
            expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
            observed, expected = observed[expected > 0], expected[expected > 0]
            if len(expected) > 1:
                statistic = ((observed - expected) ** 2 / expected).sum().item()
                assert stats.chi2.sf(statistic, df=len(expected) - 1) > 1e-5
            frequencies = samples[:, index].mean(0)
            marginals = oracle.marginals()
            bound = 5 * (marginals * (1 - marginals) / number).clamp(min=0).sqrt() + 1e-9
            assert ((frequencies - marginals).abs() <= bound).all()

    def test_samples_of_a_batch_are_independent(self):
        """Copies of one instance do not get the same samples, and neither do two calls."""
        torch.manual_seed(0)
        scores, mask, tokens = self.batch(Problem((3,), 0, "normal", 2))
        samples = self.structure.sample(scores.expand(2, *scores.shape[1:]), mask.expand(2, -1), 400)
        oracle = self.oracles(scores, tokens)[0]
        agreement = (samples[:, 0] == samples[:, 1]).flatten(1).all(1).double().mean().item()
        expected = (oracle.log_probabilities().exp() ** 2).sum().item()
        assert agreement == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 400))
        again = self.structure.sample(scores, mask, 400)
        assert not torch.equal(samples[:, 0], again[:, 0])

    def test_sampling_repeats_with_the_seed(self):
        scores, mask, _ = self.fixed_batch()
        torch.manual_seed(7)
        first = self.structure.sample(scores, mask, 20)
        torch.manual_seed(7)
        assert torch.equal(first, self.structure.sample(scores, mask, 20))

    @problems(8, styles=("huge", "huge_ties", "huge_forbidden", "shifted"))
    def test_samples_of_extreme_scores_are_possible_structures(self, problem):
        torch.manual_seed(0)
        scores, mask, tokens = self.batch(problem)
        samples = self.structure.sample(scores, mask, 5)
        for index, oracle in enumerate(self.oracles(scores, tokens)):
            log_probabilities = oracle.log_probabilities()
            for sample in samples[:, index]:
                matches = (oracle.vertices.flatten(1) == sample.flatten()).all(1)
                assert matches.any() and log_probabilities[matches].item() > -40

    # ------------------------------------------------------------------------------------ gradients

    @problems(14)
    def test_gradient_of_log_partition_is_the_marginals(self, problem):
        scores, mask, tokens = self.batch(problem)
        scores.requires_grad_()
        (gradient,) = torch.autograd.grad(self.structure.log_partition(scores, mask).sum(), scores)
        expected = torch.stack([oracle.marginals() for oracle in self.oracles(scores.detach(), tokens)])
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)

    @problems(14)
    def test_gradients_of_marginals_entropy_and_log_prob(self, problem):
        """Vector-Jacobian products against autograd through the enumeration."""
        scores, mask, tokens = self.batch(problem)
        scores.requires_grad_()
        structure = self.structure
        generator = torch.Generator().manual_seed(problem.seed)
        cotangent = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
        best = structure.argmax(scores.detach(), mask)
        oracles = self.oracles(scores, tokens)

        def by_brute_force(of: Callable) -> torch.Tensor:
            total = sum(of(index, oracle) for index, oracle in enumerate(oracles))
            return torch.autograd.grad(total, scores, retain_graph=True)[0].nan_to_num(0.0)

        pairs = {
            "marginals": (
                (structure.marginals(scores, mask) * cotangent).sum(),
                lambda index, oracle: (oracle.marginals() * cotangent[index]).sum(),
            ),
            "entropy": (
                structure.entropy(scores, mask).sum(),
                lambda index, oracle: (
                    oracle.log_partition()
                    - (oracle.marginals() * oracle._finite(scores[index]).view_as(scores[index])).sum()
                ),
            ),
            "log_prob": (
                structure.log_prob(best, scores, mask).sum(),
                lambda index, oracle: (
                    (oracle._finite(scores[index]) * best[index].flatten()).sum() - oracle.log_partition()
                ),
            ),
        }
        for name, (value, brute_force) in pairs.items():
            (gradient,) = torch.autograd.grad(value, scores)
            # The entropy's is -cov(y) s: proportional to the scores, hence the tolerance.
            scale = 1e4 if "huge" in problem.style or problem.style == "shifted" else 1.0
            assert not gradient.isnan().any(), name
            torch.testing.assert_close(
                gradient,
                by_brute_force(brute_force),
                rtol=1e-7,
                atol=1e-8 * (scale if name == "entropy" else 1.0),
                msg=lambda text, name=name: f"{name}: {text}",
            )

    @problems(14, styles=("normal", "forbidden"))
    def test_gradient_of_project(self, problem):
        """The projector onto the smallest face's directions."""
        points, mask, tokens = self.batch(problem)
        points.requires_grad_()
        generator = torch.Generator().manual_seed(problem.seed)
        cotangent = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((self.structure.project(points, mask) * cotangent).sum(), points)
        for row, found, vector, number in zip(points.detach(), gradient, cotangent, tokens, strict=True):
            jacobian = self.case.hull_oracle(row, number).project_jacobian(row)
            torch.testing.assert_close(
                found.flatten(), jacobian @ vector.flatten(), rtol=0, atol=1e-6, check_stride=False
            )

    def test_gradcheck(self):
        """Finite differences over *all* inputs, those of parts that do not exist included."""
        scores, mask, _ = self.batch(Problem((3, 0, 2), 1, "normal", 11))
        scores.requires_grad_()
        for operation, function in self.differentiable(mask).items():
            # The projection is piecewise linear: larger differences are exact, and small ones would only measure
            # the accuracy of the active set.
            eps = 1e-4 if operation == "project" else 1e-6
            assert torch.autograd.gradcheck(function, (scores,), eps=eps, atol=1e-6, rtol=1e-4), operation

    @problems()
    def test_parts_that_do_not_exist_are_exactly_zero(self, problem):
        """In every output, and in every gradient."""
        scores, mask, tokens = self.batch(problem)
        illegal = ~torch.stack([self.case.legal(number, mask.size(1)) for number in tokens])
        operations = self.operations(scores, mask)
        for name in PARTS_OPERATIONS:
            assert (operations[name]()[illegal] == 0).all(), name
        assert (operations["sample"]()[:, illegal] == 0).all()
        structures, _ = operations["top_k"]()
        assert (structures.transpose(0, 1)[:, illegal] == 0).all()
        for name, function in self.differentiable(mask).items():
            leaf = scores.clone().requires_grad_()
            value = function(leaf)
            weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=value.dtype)
            (gradient,) = torch.autograd.grad((value * weights).sum(), leaf)
            assert (gradient[illegal] == 0).all(), name

    @problems()
    def test_what_stands_at_parts_that_do_not_exist_does_not_matter(self, problem):
        scores, mask, tokens = self.batch(problem)
        illegal = ~torch.stack([self.case.legal(number, mask.size(1)) for number in tokens])
        results = self.operations(scores, mask)
        for garbage in (-float("inf"), 1e30):
            changed = self.operations(scores.masked_fill(illegal, garbage), mask)
            for name in ("argmax", "log_partition", "marginals", "entropy", "log_prob", "project"):
                torch.testing.assert_close(changed[name](), results[name](), rtol=0, atol=1e-12)

    # ---------------------------------------------------------------------------- batches and types

    @problems()
    def test_a_padded_batch_is_each_instance_alone(self, problem):
        scores, mask, tokens = self.batch(problem)
        batched = {name: operation() for name, operation in self.operations(scores, mask).items()}
        for index, number in enumerate(tokens):
            if not number:
                continue
            alone = self.operations(
                self.case.compact(scores[index], number)[None], torch.ones(1, number, dtype=torch.bool)
            )
            for name in PARTS_OPERATIONS:
                torch.testing.assert_close(
                    alone[name]()[0],
                    self.case.compact(batched[name][index], number),
                    rtol=0,
                    atol=1e-9,
                    msg=lambda text, name=name: f"{name}: {text}",
                )
            for name in ("log_partition", "entropy", "log_prob"):
                torch.testing.assert_close(alone[name]()[0], batched[name][index], rtol=1e-10, atol=1e-8)
            structures, values = alone["top_k"]()
            torch.testing.assert_close(values[0], batched["top_k"][1][index], rtol=1e-10, atol=1e-9)
            if "ties" not in problem.style:
                assert torch.equal(structures[0], self.case.compact(batched["top_k"][0][index], number))

    def test_permutation_of_the_batch(self):
        scores, mask, _ = self.fixed_batch()
        order = torch.tensor([2, 0, 3, 1])
        results, permuted = self.operations(scores, mask), self.operations(scores[order], mask[order])
        for name in ("argmax", "log_partition", "marginals", "entropy", "log_prob", "project"):
            torch.testing.assert_close(permuted[name](), results[name]()[order], rtol=0, atol=1e-12)
        for found, expected in zip(permuted["top_k"](), results["top_k"](), strict=True):
            torch.testing.assert_close(found, expected[order], rtol=0, atol=1e-12)

    def test_an_all_padding_row_is_all_zeros(self):
        scores, mask, tokens = self.fixed_batch()
        assert tokens[1] == 0
        operations = self.operations(scores, mask)
        for name in ("argmax", "log_partition", "marginals", "entropy", "log_prob", "project"):
            assert (operations[name]()[1] == 0).all(), name
        assert (operations["sample"]()[:, 1] == 0).all()
        structures, values = operations["top_k"]()
        assert (structures[1] == 0).all()
        # The empty structure exists, once.
        assert values[1, 0] == 0 and (values[1, 1:] == -float("inf")).all()

    def test_a_batch_of_nothing_but_padding(self):
        scores, mask, _ = self.batch(Problem((0, 0), 2, "normal", 0))
        for name, operation in self.operations(scores, mask).items():
            result = operation()
            for tensor in result[:1] if isinstance(result, tuple) else (result,):
                assert (tensor == 0).all(), name

    @pytest.mark.parametrize(
        "dtype, style", [(torch.float16, "normal"), (torch.bfloat16, "huge"), (torch.bfloat16, "forbidden")]
    )
    def test_half_precision_is_computed_in_float32(self, dtype, style):
        scores, mask, _ = self.fixed_batch(style, dtype)
        half, single = self.operations(scores, mask), self.operations(scores.float(), mask)
        for name in half:
            torch.manual_seed(5)
            found = half[name]()
            torch.manual_seed(5)
            expected = single[name]()
            if not isinstance(found, tuple):
                found, expected = (found,), (expected,)
            for tensor, reference in zip(found, expected, strict=True):
                assert tensor.dtype == dtype, name
                assert torch.equal(tensor, reference.to(dtype)), name

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_gradients(self, dtype):
        scores, mask, _ = self.fixed_batch("normal", dtype)
        for name, function in self.differentiable(mask).items():
            half, single = scores.clone().requires_grad_(), scores.float().requires_grad_()
            function(half).sum().backward()
            function(single).sum().backward()
            assert half.grad.dtype == dtype, name
            torch.testing.assert_close(
                half.grad.float(),
                single.grad,
                rtol=0.02,
                atol=0.02,
                msg=lambda text, name=name: f"{name}: {text}",
            )

    @problems()
    def test_float32(self, problem):
        scores, mask, tokens = self.batch(problem, torch.float32)
        oracles = self.oracles(scores, tokens)
        # Sums of four scores of 1e4 are known to about 1e-2 in float32.
        atol = 2e-2 if "huge" in problem.style or problem.style == "shifted" else 2e-5
        operations = self.operations(scores, mask)
        for name, expected in {
            "marginals": [oracle.marginals() for oracle in oracles],
            "log_partition": [oracle.log_partition() for oracle in oracles],
            "project": [self.case.project(row, number) for row, number in zip(scores, tokens, strict=True)],
        }.items():
            result = operations[name]()
            assert result.dtype == torch.float32
            torch.testing.assert_close(
                result.double(),
                torch.stack(expected),
                rtol=1e-6,
                atol=max(atol, 1e-4) if name == "project" else atol,
                msg=lambda text, name=name: f"{name}: {text}",
            )
        for structure, oracle in zip(operations["argmax"](), oracles, strict=True):
            assert oracle.is_vertex(structure)

    @pytest.mark.parametrize("scale", [1e2, 1e8])
    def test_log_prob_is_at_most_0_and_exact_in_float32(self, scale):
        scores, mask, tokens = self.fixed_batch("normal", torch.float32)
        scores = scores * scale
        oracles = self.oracles(scores, tokens)
        expected = torch.stack([oracle.log_probabilities().max() for oracle in oracles]).float()
        found = self.structure.log_prob(self.structure.argmax(scores, mask), scores, mask)
        assert found.dtype == torch.float32 and (found <= 0).all()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-15 * scale + 1e-6)

    @pytest.mark.parametrize(("scale", "dtype"), [(1e8, torch.float32), (1e13, torch.float64), (1e26, torch.float32)])
    def test_large_scores(self, scale, dtype):
        """Of scores this far apart, the best structure has probability 1; sums over structures may be refused."""
        scores, mask, tokens = self.fixed_batch("normal", dtype)
        scores = scores * scale
        oracles = self.oracles(scores, tokens)
        best = [oracle.argmax() for oracle in oracles]
        for index, structure in enumerate(best):
            assert torch.equal(self.structure.argmax(scores, mask)[index].double(), structure)
            assert torch.equal(self.structure.top_k(scores, mask, 2)[0][index, 0].double(), structure)
        projection = self.structure.project(scores, mask)
        for point, row, number in zip(projection, scores, tokens, strict=True):
            value = (point.double() * row.double().masked_fill(point == 0, 0.0)).sum().item()
            assert (point >= 0).all() and (point <= 1).all()
            hull = self.case.hull_oracle(row, number)
            assert value == pytest.approx(hull.best_score(), rel=1e-6, abs=1e-6 * scale)
            # In the hull of the structures: in no direction farther out than all of them.
            for seed in range(5):
                direction = torch.randn(row.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
                farthest = (hull.vertices * direction).flatten(1).sum(1).max()
                assert (point.double() * direction).sum() <= farthest + 1e-5
        if scale < LARGEST_SUMMED_TOTAL / scores[0].numel() / 5:
            torch.testing.assert_close(self.structure.marginals(scores, mask).double(), torch.stack(best))
            for sample in self.structure.sample(scores, mask, 2):
                assert torch.equal(sample.double(), torch.stack(best))
        else:
            for operation in ("log_partition", "marginals", "entropy", "log_prob", "sample"):
                with pytest.raises(ValueError, match="too large"):
                    self.operations(scores, mask)[operation]()

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_finite_scores_that_are_too_large_are_refused_with_their_rows(self, operation):
        for dtype, value in ((torch.float32, 1e30), (torch.float32, -3e38), (torch.float64, 1e300)):
            scores, mask, tokens = self.fixed_batch("normal", dtype)
            best = self.structure.argmax(scores, mask)
            scores[0][tuple(self.case.legal(tokens[0], mask.size(1)).nonzero()[0])] = value
            operations = self.operations(scores, mask)
            operations["log_prob"] = lambda best=best, scores=scores, mask=mask: self.structure.log_prob(
                best, scores, mask
            )
            with pytest.raises(ValueError, match=r"rows \[0\].*too large: -?[13]e\+.*-inf"):
                operations[operation]()

    @problems(14)
    def test_no_nan_anywhere(self, problem):
        for dtype in (torch.float64, torch.float32):
            scores, mask, _ = self.batch(problem, dtype)
            for name, operation in self.operations(scores, mask).items():
                result = operation()
                for tensor in result if isinstance(result, tuple) else (result,):
                    assert not tensor.isnan().any(), name
            for name, function in self.differentiable(mask).items():
                leaf = scores.clone().requires_grad_()
                function(leaf).sum().backward()
                assert leaf.grad.isfinite().all(), name

    def test_callers_tensors_are_left_alone(self):
        for style in ("normal", "forbidden"):
            scores, mask, _ = self.fixed_batch(style)
            scores_before, mask_before = scores.clone(), mask.clone()
            versions = scores._version, mask._version
            for name, operation in self.operations(scores, mask).items():
                operation()
                assert torch.equal(scores, scores_before) and torch.equal(mask, mask_before), name
                assert (scores._version, mask._version) == versions, name
            for name, function in self.differentiable(mask).items():
                leaf = scores.clone().requires_grad_()
                function(leaf).sum().backward()
                assert torch.equal(leaf.detach(), scores_before), name

    def test_results_are_the_callers_own(self):
        """Writing into a result changes neither the input nor a later result."""
        scores, mask, _ = self.fixed_batch()
        before = scores.clone()
        for name in ("argmax", "marginals", "project"):
            first = self.operations(scores, mask)[name]()
            kept = first.clone()
            first.fill_(7.0)
            assert torch.equal(scores, before), name
            assert torch.equal(self.operations(scores, mask)[name](), kept), name

    def test_strided_inputs(self):
        scores, mask, _ = self.fixed_batch()
        strided = torch.stack([scores, scores + 1], dim=-1)[..., 0]
        wide = torch.stack([mask, ~mask], dim=-1)[..., 0]
        assert not strided.is_contiguous() and not wide.is_contiguous()
        expected, found = self.operations(scores, mask), self.operations(strided, wide)
        for name in ("argmax", "log_partition", "marginals", "entropy", "log_prob", "project"):
            torch.testing.assert_close(found[name](), expected[name](), rtol=0, atol=1e-12)

    def test_inference_mode(self):
        scores, mask, _ = self.fixed_batch()
        expected = {name: operation() for name, operation in self.operations(scores, mask).items()}
        with torch.inference_mode():
            for arguments in ((scores, mask), (scores.clone(), mask.clone())):
                for name, operation in self.operations(*arguments).items():
                    result = operation()
                    if name == "sample":
                        assert result.shape == expected[name].shape
                        continue
                    if not isinstance(result, tuple):
                        result, reference = (result,), (expected[name],)
                    else:
                        reference = expected[name]
                    for tensor, value in zip(result, reference, strict=True):
                        torch.testing.assert_close(tensor, value, rtol=0, atol=1e-12)

    def test_discrete_results_carry_no_gradient(self):
        scores, mask, _ = self.fixed_batch()
        scores.requires_grad_()
        operations = self.operations(scores, mask)
        assert not operations["argmax"]().requires_grad
        assert not operations["sample"]().requires_grad
        assert not operations["top_k"]()[0].requires_grad

    def test_supports_every_operation(self):
        for operation in package.OPERATIONS:
            assert self.structure.supports(operation) is True

    # ------------------------------------------------------------------------------ two distributions

    @problems(8)
    def test_log_count(self, problem):
        """How many structures use no forbidden part, whatever the other scores."""
        scores, mask, tokens = self.batch(problem)
        expected = [len(oracle.vertices) for oracle in self.oracles(scores, tokens)]
        assert self.structure.log_count(scores, mask).exp().tolist() == pytest.approx(expected, rel=1e-9)

    @problems(8, styles=("normal", "ties", "huge", "forbidden"))
    def test_cross_entropy_and_divergence(self, problem):
        """Also where the other scores forbid what the scores allow: both are infinite then."""
        scores, mask, tokens = self.batch(problem)
        other, _, _ = self.batch(problem._replace(seed=problem.seed + 1))
        cross_entropy = self.structure.cross_entropy(scores, other, mask)
        divergence = self.structure.kl_divergence(scores, other, mask)
        for row, (number, p) in enumerate(zip(tokens, self.oracles(scores, tokens), strict=True)):
            q = self.case.oracle(other[row], number)
            log_p = p.log_probabilities()
            log_q = q.vertices.new_full((len(log_p),), -torch.inf)
            for index, vertex in enumerate(p.vertices):
                if (found := (q.vertices == vertex).flatten(1).all(1)).any():
                    log_q[index] = q.log_probabilities()[found].item()
            probable = log_p.exp() > 0
            expected = -(log_p.exp() * log_q)[probable].sum().item()
            tolerance = 1e-4 if "huge" in problem.style else 1e-7
            assert cross_entropy[row].item() == pytest.approx(expected, rel=1e-9, abs=tolerance)
            expected += (log_p.exp() * log_p)[probable].sum().item()
            assert divergence[row].item() == pytest.approx(expected, rel=1e-9, abs=tolerance)

    def test_gradients_of_cross_entropy_and_divergence(self):
        scores, mask, _ = self.batch(Problem((3, 0, 2), 1, "normal", 11))
        other = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for operation in (self.structure.cross_entropy, self.structure.kl_divergence):
            inputs = (scores.clone().requires_grad_(), other.requires_grad_())
            assert torch.autograd.gradcheck(lambda s, t, f=operation: f(s, t, mask), inputs, atol=1e-6)
        assert (self.structure.kl_divergence(scores, scores, mask) == 0).all()

    def test_distribution(self):
        """The same numbers as a distribution of torch, in any batch shape."""
        scores, mask, _ = self.fixed_batch()
        structure = self.structure
        batched = structure.distribution(scores.unflatten(0, (2, 2)), mask.unflatten(0, (2, 2)), validate_args=True)
        assert batched.batch_shape == (2, 2) and batched.event_shape == scores.shape[1:]
        torch.manual_seed(0)
        samples = batched.sample((3,))
        torch.manual_seed(0)
        assert torch.equal(samples.flatten(1, 2), structure.sample(scores, mask, 3))
        log_prob = batched.log_prob(samples)
        torch.testing.assert_close(log_prob.flatten(1), structure.log_prob(samples.flatten(1, 2), scores, mask))
        assert torch.equal(batched.mode.flatten(0, 1), structure.argmax(scores, mask))
        torch.testing.assert_close(batched.mean.flatten(0, 1), structure.marginals(scores, mask))
        torch.testing.assert_close(batched.entropy().flatten(), structure.entropy(scores, mask))
        other = structure.distribution(torch.zeros_like(batched.scores), batched.mask)
        divergence = torch.distributions.kl_divergence(batched, other).flatten()
        torch.testing.assert_close(divergence, structure.kl_divergence(scores, torch.zeros_like(scores), mask))
        expanded = batched.expand((5, 2, 2))
        assert expanded.sample().shape == (5, *batched.scores.shape)
        torch.testing.assert_close(expanded.log_prob(samples[0])[4], log_prob[0])

    def test_relaxed_distribution(self):
        scores, mask, _ = self.fixed_batch()
        scores.requires_grad_()
        relaxed = self.structure.distribution(scores, mask, temperature=0.5)
        assert relaxed.has_rsample
        points = relaxed.rsample((2,))
        assert points.shape == (2, *scores.shape)
        hull = self.structure.argmax(torch.zeros_like(points[0]), mask)
        # Inside the polytope: no structure is farther in any direction.
        for point in points.detach():
            direction = point - hull
            best = self.structure.argmax(direction, mask)
            assert ((direction * (best - point)).flatten(1).sum(-1) >= -1e-9).all()
        points.sum().backward()
        assert scores.grad.isfinite().all()

    def test_values_that_are_no_structures_are_refused(self):
        scores, mask, tokens = self.fixed_batch()
        distribution = self.structure.distribution(scores, mask, validate_args=True)
        best = distribution.mode
        for bad in (best + 1.0, 0.5 * best):
            with pytest.raises(ValueError, match="values are no.*the first of them at"):
                distribution.log_prob(bad)
        with pytest.raises(ValueError, match="batch"):
            self.structure.distribution(scores[0], mask[0])
        with pytest.raises(ConfigurationError, match="temperature is 0"):
            self.structure.distribution(scores, mask, temperature=0)

    # ------------------------------------------------------------------------------ SparseMAP's distribution

    @problems(8, styles=("normal", "ties", "forbidden"))
    def test_sparse_distribution(self, problem):
        """Structures, each once, whose mean is the exact projection; the greatest probability first."""
        scores, mask, tokens = self.batch(problem)
        parts, probabilities = self.structure.sparse_distribution(scores, mask)
        assert (probabilities >= 0).all() and (probabilities[:, :-1] >= probabilities[:, 1:]).all()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(len(scores), dtype=torch.float64))
        for row, (found, q, oracle) in enumerate(zip(parts, probabilities, self.oracles(scores, tokens), strict=True)):
            assert all(oracle.is_vertex(vertex) for vertex in found[q > 0]) and (found[q == 0] == 0).all()
            assert len(found[q > 0].unique(dim=0)) == (q > 0).sum()
            mean = torch.einsum("k,k...->...", q, found)
            torch.testing.assert_close(mean, oracle.project(scores[row]), rtol=0, atol=1e-6)

    def test_gradient_of_sparse_distribution(self):
        scores, mask, _ = self.batch(Problem((3, 0, 2), 1, "normal", 11))
        assert torch.autograd.gradcheck(
            lambda scores: self.structure.sparse_distribution(scores, mask)[1],
            (scores.requires_grad_(),),
            eps=1e-5,
            atol=1e-5,
        )

    # ----------------------------------------------------------------------- what it says of itself

    def test_constants_over_competing_parts_change_nothing(self):
        """`competing_dimensions` and `independent_rows` are what they say."""
        scores, mask, tokens = self.fixed_batch()
        structure, dimensions = self.structure, self.structure.competing_dimensions
        if dimensions:
            shape = (*scores.shape[: scores.dim() - dimensions], *[1] * dimensions)
            shifted = scores + torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
            assert torch.equal(structure.argmax(shifted, mask), structure.argmax(scores, mask))
            marginals = structure.marginals(scores, mask)
            torch.testing.assert_close(structure.marginals(shifted, mask), marginals, rtol=0, atol=1e-9)
        legal = structure.legal_parts(scores, mask)
        rows = scores.masked_fill(~legal, -torch.inf).softmax(-1).masked_fill(~legal, 0.0)
        same = (rows - structure.marginals(scores, mask)).abs().max() < 1e-9
        assert same == structure.independent_rows

    def test_an_operation_that_does_not_exist_is_a_configuration_error(self):
        with pytest.raises(ConfigurationError, match="levitate"):
            self.structure.supports("levitate")

    def test_is_registered(self):
        assert isinstance(self.structure, LatentStructure.by_name(self.case.params["type"]))

    # ------------------------------------------------------------------------------------ bad input

    def test_nan_is_refused(self):
        for operation in OPERATIONS:
            scores, mask, tokens = self.fixed_batch()
            legal = self.case.legal(tokens[0], mask.size(1))
            scores[0][tuple(legal.nonzero()[0])] = float("nan")
            with pytest.raises(ValueError, match="(?i)nan"):
                self.operations(scores, mask)[operation]()

    def test_shapes_that_do_not_fit_are_refused(self):
        for operation in OPERATIONS:
            scores, mask, _ = self.fixed_batch()
            best = self.structure.argmax(scores, mask)

            def call(scores: torch.Tensor, mask: torch.Tensor, operation: str = operation, best=best) -> None:
                if operation == "log_prob":
                    self.structure.log_prob(best, scores, mask)
                else:
                    self.operations(scores, mask)[operation]()

            for bad_scores, bad_mask in (
                (scores[:, :-1], mask),
                (scores, mask[:, :-1]),
                (scores[:-1], mask),
                (scores[0], mask),
            ):
                with pytest.raises(ValueError) as error:
                    call(bad_scores, bad_mask)
                message = str(error.value).replace(" ", "")
                shapes = [str(tuple(bad.shape)).replace(" ", "") for bad in (bad_scores, bad_mask)]
                assert any(shape in message or shape.strip("()") in message for shape in shapes), message

    def test_log_prob_refuses_parts_of_another_shape(self):
        scores, mask, _ = self.fixed_batch()
        best = self.structure.argmax(scores, mask)
        for parts in (best[:-1], best[:, :-1]):
            with pytest.raises(ValueError):
                self.structure.log_prob(parts, scores, mask)

    def test_fewer_than_one_structure_is_refused(self):
        scores, mask, _ = self.fixed_batch()
        for k in (0, -2):
            with pytest.raises(ValueError, match=str(k)):
                self.structure.top_k(scores, mask, k)
            with pytest.raises(ValueError, match=str(k)):
                self.structure.sample(scores, mask, k)


class NonEmptyTestCase(StructureTestCase):
    """A structure that has to choose something; the others have the empty one, whatever is forbidden."""

    def test_an_infeasible_instance_is_refused(self):
        """Every structure of the first instance needs a part that is forbidden."""
        for operation in OPERATIONS:
            scores, mask, _ = self.fixed_batch()
            best = self.structure.argmax(scores, mask)
            structures = self.operations(scores, mask)
            if operation == "log_prob":
                structures["log_prob"] = partial(self.structure.log_prob, best, scores, mask)
            scores[0] = -float("inf")
            with pytest.raises(ValueError, match=r"(?i)inf|forbid|feasible"):
                structures[operation]()


class PrefixMaskTestCase(StructureTestCase):
    """A structure over a sentence: its mask is a prefix of each row, and one with holes is an error."""

    def test_a_mask_whose_first_column_is_false_is_refused(self):
        for operation in OPERATIONS:
            scores, mask, _ = self.fixed_batch()
            mask[0, 0] = False
            with pytest.raises(ValueError, match="(?i)mask"):
                self.operations(scores, mask)[operation]()

    def test_a_mask_with_holes_is_refused(self):
        for operation in OPERATIONS:
            scores, mask, _ = self.fixed_batch()
            mask[0, 1] = False
            with pytest.raises(ValueError, match="(?i)mask"):
                self.operations(scores, mask)[operation]()
