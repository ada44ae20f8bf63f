import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import LatentStructure
from tests.enumeration import CASES
from tests.structures.structure_test_case import PrefixMaskTestCase, Problem


class TestArcGraph(PrefixMaskTestCase):
    case = CASES["arc_graph"]

    def test_closed_forms(self):
        """Arcs are independent: threshold at 0, sigmoid, clip."""
        scores, mask, _ = self.batch(Problem((4, 3), 1, "normal", 0))
        legal = self.structure.legal_parts(scores, mask)
        zero = torch.zeros_like(scores)
        assert torch.equal(self.structure.argmax(scores, mask), ((scores > 0) & legal).double())
        torch.testing.assert_close(self.structure.marginals(scores, mask), torch.where(legal, scores.sigmoid(), zero))
        torch.testing.assert_close(self.structure.project(scores, mask), torch.where(legal, scores.clamp(0, 1), zero))

    def test_a_budget_as_large_as_the_sentence_is_none(self):
        bounded = LatentStructure.from_params(Params({"type": "arc_graph", "max_heads": 10}))
        scores, mask, _ = self.fixed_batch()
        for operation in ("argmax", "log_partition", "marginals", "entropy", "project"):
            torch.testing.assert_close(
                getattr(bounded, operation)(scores, mask),
                getattr(self.structure, operation)(scores, mask),
                rtol=0,
                atol=1e-9,
            )

    @pytest.mark.parametrize("max_heads", [0, -1])
    def test_a_budget_below_one_is_a_configuration_error(self, max_heads):
        with pytest.raises(ConfigurationError, match=str(max_heads)):
            LatentStructure.from_params(Params({"type": "arc_graph", "max_heads": max_heads}))


class TestArcGraphOfOneHead(PrefixMaskTestCase):
    case = CASES["arc_graph_one_head"]


class TestArcGraphOfTwoHeads(PrefixMaskTestCase):
    case = CASES["arc_graph_two_heads"]
