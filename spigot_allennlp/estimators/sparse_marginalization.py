from typing import Optional, Tuple

import torch

from spigot_allennlp.checks import at_least_one, one_of
from spigot_allennlp.estimators.estimator import Estimator
from spigot_allennlp.estimators.expectation import Expectation
from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.structures import LatentStructure


@Estimator.register("sparse_marginalization")
class SparseMarginalization(Expectation):
    """
    The expected loss under a sparse distribution (Correia, Niculae, Aziz and Martins 2020): `sum_y q(y) L(y)`, where
    most structures have probability exactly 0 and need no run of the downstream model. The gradient is exact for that
    sum. The outputs are those at the structure of the highest probability.

    # Parameters

    distribution : `str`, optional (default = `"sparsemap"`)
        `q`: `"sparsemap"`, the distribution whose mean is `Proj_M(s)`, over as many structures as that takes, at most
        one more than parts; for a categorical variable that is sparsemax. `"top_k"`, sparsemax over the scores of the
        `k` best structures: exactly sparsemax over all of them as soon as fewer than `k` get a positive probability.
    k : `int`, optional (default = `10`)
        Number of structures of `"top_k"`; a categorical variable always takes all of its values.

    # Errors

    `ConfigurationError` for values out of range.
    """

    def __init__(self, distribution: str = "sparsemap", k: int = 10) -> None:
        super().__init__()
        self.distribution = one_of("distribution", distribution, ("sparsemap", "top_k"))
        self.k = at_least_one("k", k)
        self.requires = ("sparse_distribution" if distribution == "sparsemap" else "top_k",)

    def _distribution(
        self, scores: torch.Tensor, mask: Optional[torch.Tensor], structure: LatentStructure
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        if self.distribution == "sparsemap":
            return structure.sparse_distribution(scores, mask)
        structures, totals = structure.top_k(scores, mask, structure.num_structures(scores) or self.k)
        # Sorting and sums in at least float32.
        wide = totals.to(torch.promote_types(totals.dtype, torch.float))
        return structures, project_simplex(wide, ~totals.isneginf()).to(totals.dtype)
