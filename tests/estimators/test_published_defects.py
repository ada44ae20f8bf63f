"""
What published code gets wrong, by package, and that this one does not: the list at the end of the definitions of
structures and estimators, as far as it concerns these two.
"""

import math

import pytest
import torch
from allennlp.common import Params

from spigot_allennlp.estimators import Estimator
from spigot_allennlp.structures import LatentStructure, NonprojectiveTree, ProjectiveTree
from tests.enumeration import CASES
from tests.estimators.estimator_test_case import LinearDownstream, problem, run, structure_of

TREES = ("projective_tree", "projective_tree_multi_root", "nonprojective_tree", "nonprojective_tree_multi_root")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0).item()


class TestUnderstandingSpigot:
    @pytest.mark.parametrize("name", TREES)
    def test_no_marginal_mass_on_padding(self, name):
        """There: 3.5 in a 3-token sentence that is padded to 5."""
        mask = torch.arange(6) < 4
        marginals = structure_of(name).marginals(normal(1, 6, 6), mask[None])[0]
        assert (marginals[~mask] == 0).all()
        assert (marginals[:, ~mask] == 0).all()
        assert marginals.sum().item() == pytest.approx(3)

    @pytest.mark.parametrize("number", [3, 10])
    def test_ste_marginals_uses_the_full_jacobian(self, number):
        """There: the diagonal only, cosine .76 to the gradient, and not 0 for a constant one."""
        scores = normal(50, number).requires_grad_()
        weights = normal(50, number, seed=1)
        mask = torch.ones(50, number, dtype=torch.bool)
        estimator = Estimator.by_name("ste_marginals")()
        for downstream, expected in (
            (LinearDownstream(weights), torch.autograd.grad((scores.softmax(1) * weights).sum(), scores)[0]),
            (LinearDownstream(torch.ones_like(weights)), torch.zeros_like(weights)),
        ):
            scores.grad = None
            output = estimator(scores, mask, structure_of("categorical"), downstream)
            output.instance_loss.sum().backward()
            torch.testing.assert_close(scores.grad, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("baseline", ["none", "moving_average", "self_critic", "leave_one_out"])
    def test_the_score_function_points_along_the_exact_gradient(self, baseline):
        """There: wrong sign, a batch-mean reward, an unnormalised log-probability: cosine -.51."""
        # 20 instances that want different things: a batch-mean reward would tell them nothing.
        copies, options = 1000, 4
        scores = normal(20, options).repeat_interleave(copies, 0).requires_grad_()
        weights = normal(20, options, seed=1).repeat_interleave(copies, 0)
        mask = torch.ones_like(scores, dtype=torch.bool)
        torch.manual_seed(0)
        samples = 2 if baseline == "leave_one_out" else 1
        estimator = Estimator.from_params(
            Params({"type": "score_function", "baseline": baseline, "num_samples": samples})
        )
        output = estimator(scores, mask, structure_of("categorical"), LinearDownstream(weights))
        output.instance_loss.sum().backward()
        (exact,) = torch.autograd.grad((scores.softmax(1) * weights).sum(), scores)
        means = scores.grad.view(20, copies, options).mean(1)
        assert cosine(means, exact.view(20, copies, options).mean(1)) > 0.98
        # The log-probability is normalised: shifting all scores of an instance is no direction.
        torch.testing.assert_close(scores.grad.sum(1), torch.zeros(20 * copies).double(), rtol=0, atol=1e-9)

    def test_the_baseline_flag_is_the_right_way_round(self):
        """With a baseline a constant loss teaches nothing; without one it is all noise."""
        scores = normal(30, 4)
        gradients = {}
        for baseline in ("none", "self_critic"):
            leaf = scores.clone().requires_grad_()
            torch.manual_seed(0)
            estimator = Estimator.from_params(Params({"type": "score_function", "baseline": baseline}))
            output = estimator(
                leaf,
                torch.ones(30, 4, dtype=torch.bool),
                structure_of("categorical"),
                lambda z: {"instance_loss": 5 * z.sum(1)},
            )
            output.instance_loss.sum().backward()
            gradients[baseline] = leaf.grad
        assert gradients["none"].abs().max() > 0.5
        assert gradients["self_critic"].abs().max() < 1e-9

    @pytest.mark.parametrize("name", ["ste", "spigot", "spigot_ce", "spigot_eg"])
    def test_the_step_does_not_shrink_with_the_batch(self, name):
        """There: at 5,000 examples, 1/5,000 of what is configured."""
        scores, weights = normal(5000, 4), normal(5000, 4, seed=1)
        estimator = Estimator.by_name(name)()
        gradients = []
        for rows in (slice(0, 5000), slice(0, 1)):
            leaf = scores[rows].clone().requires_grad_()
            mask = torch.ones_like(leaf, dtype=torch.bool)
            output = estimator(leaf, mask, structure_of("categorical"), LinearDownstream(weights[rows]))
            output.instance_loss.mean().backward()
            gradients.append(leaf.grad[0] * len(leaf))
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)
        assert gradients[0].abs().max() > 1e-3

    @pytest.mark.parametrize("name", TREES)
    @pytest.mark.parametrize("words", [25, 50])
    def test_the_projection_of_long_sentences_is_converged(self, name, words):
        """There: a mean error of .05 at n = 50, unreported. The gap bounds the squared distance by itself."""
        structure = structure_of(name)
        mask = torch.ones(1, words + 1, dtype=torch.bool)
        points = structure.argmax(normal(1, words + 1, words + 1), mask) - normal(1, words + 1, words + 1, seed=1)
        projection = structure.project(points, mask)
        slack = (points - projection).masked_fill(~structure.legal_parts(points, mask), 0)
        gap = (slack * (structure.argmax(slack, mask) - projection)).sum()
        assert gap <= 1e-6


class TestAllennlpSpigot:
    @pytest.mark.parametrize("name", CASES)
    def test_batched_projections_are_not_zero(self, name):
        """There: zeros for every row, and a broadcast that only fits a batch of one."""
        given = problem(name)
        points = given.scores + 1
        batched = given.structure.project(points, given.mask)
        for row, (found, tokens) in enumerate(zip(batched, given.oracle.tokens, strict=True)):
            torch.testing.assert_close(found, given.oracle.case.project(points[row], tokens), rtol=0, atol=1e-6)
            assert found.abs().sum() > 0.1

    @pytest.mark.parametrize("name", ["categorical", "projective_tree", "arc_graph"])
    def test_the_backward_pass_listens_to_the_gradient(self, name):
        """There: it returns the predicted tree whatever the gradient."""
        given = problem(name)
        found = []
        for seed in (1, 2):
            leaf = given.scores.clone().requires_grad_()
            downstream = LinearDownstream(normal(*leaf.shape, seed=seed))
            Estimator.by_name("spigot")()(leaf, given.mask, given.structure, downstream).instance_loss.sum().backward()
            found.append(leaf.grad)
        assert (found[0] - found[1]).abs().max() > 0.05

    def test_forward_leaves_accumulated_gradients_alone(self):
        """There: `zero_grad()` inside `forward`."""
        given = problem("projective_tree")
        estimator = Estimator.from_params(Params({"type": "spigot", "num_steps": 3}))
        once = run(estimator, given)
        given.downstream.zero_grad()
        leaf = given.scores.clone().requires_grad_()
        for _ in range(2):
            estimator(leaf, given.mask, given.structure, given.downstream).instance_loss.sum().backward()
        torch.testing.assert_close(leaf.grad, 2 * once.gradient)
        for name, p in given.downstream.named_parameters():
            torch.testing.assert_close(p.grad, 2 * once.parameters[name])

    @pytest.mark.parametrize("name", ["imle", "score_function", "spigot_ce"])
    def test_eval_is_a_switch_and_no_counter(self, name):
        estimator = Estimator.by_name(name)()
        before = {key: value.clone() for key, value in estimator.state_dict().items()}
        attributes = {key: value for key, value in vars(estimator).items() if not key.startswith("_")}
        for _ in range(5):
            estimator.eval()
            estimator.train()
        assert {key: value for key, value in vars(estimator).items() if not key.startswith("_")} == attributes
        for key, value in estimator.state_dict().items():
            torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


class TestSpigotInC:
    def test_the_step_is_not_clipped_unasked(self):
        """There: the norm of the gradient is clipped to 1, so larger ones make no larger step."""
        weights = torch.tensor([[30.0, 0.0, 0.0]], dtype=torch.float64)
        scores = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
        mask = torch.ones(1, 3, dtype=torch.bool)
        output = Estimator.by_name("ste")()(scores, mask, structure_of("categorical"), LinearDownstream(weights))
        output.instance_loss.sum().backward()
        assert scores.grad[0, 0] == 30
        scores.grad = None
        clipped = Estimator.from_params(Params({"type": "ste", "max_gradient_norm": 1.0}))
        clipped(scores, mask, structure_of("categorical"), LinearDownstream(weights)).instance_loss.sum().backward()
        assert scores.grad[0, 0] == pytest.approx(1.0)

    def test_the_joint_projection_of_labelled_graphs_is_euclidean(self):
        """There: first the arc, then its labels, which is another point."""
        tokens = 3
        case = CASES["labeled_arc_graph"]
        points = normal(4, *case.shape(tokens), seed=3)
        mask = torch.ones(4, tokens, dtype=torch.bool)
        joint = structure_of("labeled_arc_graph").project(points, mask)
        sequential = LatentStructure.from_params(
            Params({"type": "labeled_arc_graph", "projection": "sequential"})
        ).project(points, mask)
        for row, found in zip(points, joint, strict=True):
            torch.testing.assert_close(found, case.project(row, tokens), rtol=0, atol=1e-9)
        legal = case.legal(tokens, tokens)
        distance = [((points - point) * legal).norm() for point in (joint, sequential)]
        assert distance[0] < distance[1] - 1e-3


class TestTorchStruct:
    def test_nonprojective_marginals_have_no_bias(self):
        """There: an epsilon of 1e-5 that moves them by up to 1e-3."""
        for name in ("nonprojective_tree", "nonprojective_tree_multi_root"):
            for scale in (1.0, 8.0):
                scores = scale * normal(1, 5, 5)
                marginals = structure_of(name).marginals(scores, torch.ones(1, 5, dtype=torch.bool))
                expected = CASES[name].oracle(scores[0], 5).marginals()
                torch.testing.assert_close(marginals[0], expected, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("name", TREES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_scores_of_ten_thousand(self, name, dtype):
        """There: NaN."""
        scores = (1e4 * normal(1, 5, 5).sign()).to(dtype)
        mask = torch.ones(1, 5, dtype=torch.bool)
        expected = CASES[name].oracle(scores[0], 5)
        structure = structure_of(name)
        marginals = structure.marginals(scores, mask)[0]
        torch.testing.assert_close(marginals.double(), expected.marginals(), rtol=0, atol=1e-5)
        log_partition = structure.log_partition(scores, mask).item()
        assert log_partition == pytest.approx(expected.log_partition().item(), rel=1e-6)

    @pytest.mark.parametrize("tree", [ProjectiveTree, NonprojectiveTree])
    def test_one_structure_does_not_change_another(self, tree):
        """There: `multiroot` is set on the class."""
        scores, mask = torch.zeros(1, 4, 4), torch.ones(1, 4, dtype=torch.bool)
        single = tree(single_root=True)
        before = single.log_partition(scores, mask)
        multiple = tree(single_root=False)
        after = multiple.log_partition(scores, mask)
        assert after > before
        assert torch.equal(single.log_partition(scores, mask), before)
        assert torch.equal(tree(single_root=True).log_partition(scores, mask), before)
        assert torch.equal(multiple.log_partition(scores, mask), after)

    @pytest.mark.parametrize("name", TREES)
    def test_forbidden_arcs(self, name):
        """There: NaN marginals."""
        scores = normal(1, 5, 5)
        for arc in ((1, 0), (2, 0), (3, 4), (2, 1)):
            scores[0][arc] = -float("inf")
        marginals = structure_of(name).marginals(scores, torch.ones(1, 5, dtype=torch.bool))
        expected = CASES[name].oracle(scores[0], 5).marginals()
        torch.testing.assert_close(marginals[0], expected, rtol=0, atol=1e-10)
        assert marginals[0, 1, 0] == marginals[0, 3, 4] == 0

    @pytest.mark.parametrize("name", TREES)
    def test_half_precision(self, name):
        """There: it raises."""
        scores = normal(1, 5, 5).half()
        marginals = structure_of(name).marginals(scores, torch.ones(1, 5, dtype=torch.bool))
        assert marginals.dtype == torch.half
        torch.testing.assert_close(
            marginals[0].double(), CASES[name].oracle(scores[0], 5).marginals(), rtol=0, atol=1e-3
        )


class TestSuPar:
    @pytest.mark.parametrize("name", TREES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_marginals_of_shifted_and_of_scaled_scores(self, name, dtype):
        """There: off by up to 2 when dependents are shifted by about 100, or all is scaled by 1e4."""
        base = normal(1, 5, 5)
        mask = torch.ones(1, 5, dtype=torch.bool)
        shift = torch.tensor([0.0, -100.0, 150.0, 90.0, -120.0]).double()[None, :, None]
        for scores in ((base + shift).to(dtype), (base * 1e4).to(dtype), (base * 100).to(dtype)):
            marginals = structure_of(name).marginals(scores, mask)[0]
            expected = CASES[name].oracle(scores[0], 5).marginals()
            atol = 1e-9 if dtype == torch.float64 else 1e-4
            torch.testing.assert_close(marginals.double(), expected, rtol=0, atol=atol)

    @pytest.mark.parametrize("name", TREES)
    def test_argmax_does_not_overwrite_the_scores(self, name):
        scores = normal(2, 6, 6)
        kept = scores.clone()
        structure_of(name).argmax(scores, torch.ones(2, 6, dtype=torch.bool))
        assert torch.equal(scores, kept)


class TestLpSparsemap:
    def test_projectivity_and_number_of_roots_are_two_choices(self):
        """There: `projective=True` means one root, `False` several. Here: four sets, counted by log-partitions."""
        scores, mask = torch.zeros(1, 5, 5).double(), torch.ones(1, 5, dtype=torch.bool)
        counts = {
            (name, single_root): math.exp(
                LatentStructure.from_params(Params({"type": name, "single_root": single_root})).log_partition(
                    scores, mask
                )
            )
            for name in ("projective_tree", "nonprojective_tree")
            for single_root in (True, False)
        }
        assert {key: round(value) for key, value in counts.items()} == {
            ("projective_tree", True): 30,
            ("projective_tree", False): 55,
            ("nonprojective_tree", True): 64,
            ("nonprojective_tree", False): 125,
        }


class TestAllennlp:
    def test_argmax_leaves_the_diagonal_and_root_alone(self):
        """There: `decode_mst` zeroes the caller's diagonal."""
        scores = normal(1, 6, 6) + 100 * torch.eye(6).double()
        kept = scores.clone()
        best = NonprojectiveTree().argmax(scores, torch.ones(1, 6, dtype=torch.bool))
        assert torch.equal(scores, kept)
        assert (best[0].diagonal() == 0).all()

    def test_a_single_root_is_found_where_two_score_higher(self):
        """There: several roots only."""
        scores = normal(8, 7, 7)
        scores[:, :, 0] += 10
        mask = torch.ones(8, 7, dtype=torch.bool)
        assert (NonprojectiveTree(single_root=False).argmax(scores, mask)[:, :, 0].sum(1) > 1).all()
        assert (NonprojectiveTree(single_root=True).argmax(scores, mask)[:, :, 0].sum(1) == 1).all()

    @pytest.mark.parametrize("single_root", [True, False])
    def test_nested_cycles_of_a_long_sentence(self, single_root):
        """There: 54 s at 1,000 tokens, one contraction at a time. Here the cycles nest 300 deep."""
        words = 300
        scores = torch.full((1, words + 1, words + 1), -1e6).double()
        # Words 1 and 2 want each other; each next word is wanted by the cycle below it, and wants that cycle.
        for word in range(1, words):
            scores[0, word, word + 1] = -word
            scores[0, word + 1, word] = 0.0
        scores[0, 1:, 0] = -1e4
        scores[0, words, 0] = -1e3
        mask = torch.ones(1, words + 1, dtype=torch.bool)
        best = NonprojectiveTree(single_root=single_root).argmax(scores, mask)
        # Only chains are free of the -1e6: a root r, everything right of it hangs on its left neighbour at no
        # cost, everything left of it on its right neighbour, at 1 + ... + (r - 1).
        root_costs = [1e4 + r * (r - 1) / 2 for r in range(1, words)] + [1e3 + words * (words - 1) / 2]
        root = min(range(words), key=root_costs.__getitem__) + 1
        expected = torch.zeros_like(best)
        expected[0, root, 0] = 1
        for word in range(1, words + 1):
            if word != root:
                expected[0, word, word + 1 if word < root else word - 1] = 1
        assert torch.equal(best, expected)
