import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.structures import LatentStructure
from tests.enumeration import CASES
from tests.structures.structure_test_case import PrefixMaskTestCase, Problem


class TestLabeledArcGraph(PrefixMaskTestCase):
    case = CASES["labeled_arc_graph"]

    def test_arcs_are_independent(self):
        """At most one label an arc: a softmax over the labels and "no arc", whose score is 0."""
        scores, mask, _ = self.batch(Problem((3, 3), 0, "normal", 0))
        legal = self.structure.legal_parts(scores, mask)
        with_none = torch.cat([scores, torch.zeros_like(scores[..., :1])], -1).softmax(-1)[..., :-1]
        torch.testing.assert_close(
            self.structure.marginals(scores, mask), torch.where(legal, with_none, torch.zeros_like(scores))
        )

    def test_an_unknown_projection_is_a_configuration_error(self):
        with pytest.raises(ConfigurationError, match="sideways"):
            LatentStructure.from_params(Params({"type": "labeled_arc_graph", "projection": "sideways"}))
