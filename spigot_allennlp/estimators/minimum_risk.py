from typing import Optional, Tuple

import torch

from spigot_allennlp.checks import at_least_one
from spigot_allennlp.estimators.estimator import Estimator
from spigot_allennlp.estimators.expectation import Expectation
from spigot_allennlp.structures import LatentStructure


@Estimator.register("minimum_risk")
class MinimumRisk(Expectation):
    """
    Minimizes the expected loss `E_p[L]` itself (Smith and Eisner 2006; Shen et al. 2016): over all values of a
    categorical variable, over the `k` best structures with their probabilities renormalized otherwise. The gradient
    is exact for that sum. The outputs are those at the best structure.

    # Parameters

    k : `int`, optional (default = `10`)
        Number of structures, and so of runs of the downstream model; a categorical variable always takes all of its
        values.

    # Errors

    `ConfigurationError` for `k` below 1.
    """

    requires = ("top_k",)

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        self.k = at_least_one("k", k)

    def _distribution(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        structures, totals = structure.top_k(scores, mask, structure.num_structures(scores) or self.k)
        return structures, totals.softmax(-1)
