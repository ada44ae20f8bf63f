import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.estimators import Spigot
from spigot_allennlp.structures import LabeledArcGraph, LatentStructure
from tests.enumeration import CASES
from tests.structures.structure_test_case import PrefixMaskTestCase, Problem


class TestLabeledArcGraph(PrefixMaskTestCase):
    case = CASES["labeled_arc_graph"]

    def test_arcs_are_independent(self):
        """At most one label an arc: a softmax over the labels and "no arc", whose score is 0."""
        scores, mask, _ = self.batch(Problem((3, 3), 0, "normal", 0))
        legal = self.structure.legal_parts(scores, mask)
        labeled = scores[..., :1] + scores[..., 1:]
        labels = torch.cat([labeled, torch.zeros_like(scores[..., :1])], -1).softmax(-1)[..., :-1]
        expected = torch.cat([labels.sum(-1, keepdim=True), labels], -1)
        torch.testing.assert_close(
            self.structure.marginals(scores, mask), torch.where(legal, expected, torch.zeros_like(scores))
        )

    @pytest.mark.parametrize("projection", ["joint", "sequential"])
    @pytest.mark.parametrize("scale", [1.0, 1e7, 1e10])
    def test_projections_of_large_points_are_feasible(self, projection, scale):
        structure = LabeledArcGraph(projection)
        mask = torch.ones(2, 4, dtype=torch.bool)
        torch.manual_seed(0)
        found = structure.project(scale * torch.randn(2, 4, 4, 5), mask)
        assert found.min() >= 0 and found.max() <= 1
        torch.testing.assert_close(found[..., 1:].sum(-1), found[..., 0])

    def test_an_unknown_projection_is_a_configuration_error(self):
        with pytest.raises(ConfigurationError, match="sideways"):
            LatentStructure.from_params(Params({"type": "labeled_arc_graph", "projection": "sideways"}))


def published_pull(graph: list, gradient: list, max_norm: float) -> list:
    """
    What Peng et al. (2018) compute for the scores of one sentence, written down from their description without any part
    of this package: lists `[dependent][head]` of `[arc, label, label, ...]`.
    """
    norm = sum(g * g for row in gradient for arc in row for g in arc) ** 0.5
    factor = min(1.0, max_norm / norm)
    pulls = []
    for z_row, g_row in zip(graph, gradient, strict=True):
        pulls.append([])
        for z, g in zip(z_row, g_row, strict=True):
            target = [a - factor * b for a, b in zip(z, g, strict=True)]
            arc = min(target[0], 1.0)
            if arc <= 0:
                new = [0.0] * len(z)
            else:
                # The shift that makes the labels, cut to [0, 1], sum to the arc: by bisection.
                low, high = min(target[1:]) - 1.0, max(target[1:])
                for _ in range(100):
                    middle = (low + high) / 2
                    total = sum(min(max(x - middle, 0.0), 1.0) for x in target[1:])
                    low, high = (middle, high) if total > arc else (low, middle)
                new = [arc, *(min(max(x - high, 0.0), 1.0) for x in target[1:])]
            pulls[-1].append([a - b for a, b in zip(z, new, strict=True)])
    return pulls


@pytest.mark.parametrize("seed", range(20))
def test_the_published_pull(seed):
    torch.manual_seed(seed)
    tokens, labels, max_norm = 4, 3, (0.15, 1.0, 5.0)[seed % 3]
    scores = torch.randn(1, tokens, tokens, 1 + labels, dtype=torch.double, requires_grad=True)
    weights = 2 * torch.randn_like(scores)
    mask = torch.ones(1, tokens, dtype=torch.bool)
    structure = LabeledArcGraph("sequential")
    estimator = Spigot(max_gradient_norm=max_norm)
    output = estimator(scores, mask, structure, lambda z: {"instance_loss": (weights * z).flatten(1).sum(-1)})
    output.instance_loss.sum().backward()
    legal = structure.legal_parts(scores, mask)
    # The gradient of parts that cannot be counts for nothing.
    gradient = weights.detach().masked_fill(~legal, 0.0)
    expected = published_pull(output.value[0].tolist(), gradient[0].tolist(), max_norm)
    torch.testing.assert_close(scores.grad[0].tolist(), expected, atol=1e-9, rtol=0)
    assert (scores.grad != 0).any()


def test_arcs_and_labels_have_gradients_of_their_own():
    """What the loss has against an arc counts once, and is shared by the labels, however many there are."""
    scores = torch.full((1, 2, 2, 4), -1.0, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    downstream = lambda z: {"instance_loss": -0.25 * z[..., 0].flatten(1).sum(-1)}  # noqa: E731
    for projection in ("joint", "sequential"):
        scores.grad = None
        Spigot()(scores, mask, LabeledArcGraph(projection), downstream).instance_loss.sum().backward()
        assert scores.grad[0, 1, 0, 0] == (-0.25 if projection == "sequential" else pytest.approx(-0.1875))
        assert scores.grad[0, 1, 0, 1:].sum() == pytest.approx(scores.grad[0, 1, 0, 0].item())
