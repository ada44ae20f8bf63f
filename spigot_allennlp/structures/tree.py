from typing import Callable, Optional, Tuple, Union

import torch

from spigot_allennlp.checks import one_of
from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.functional.sparsemap import CompiledOracle, Oracle, TreeOracle
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.structures.latent_structure import LatentStructure


class Tree(LatentStructure):
    """
    Dependency trees: arborescences rooted at ROOT. What projective and non-projective trees share.

    # Parameters

    single_root : `bool`, optional (default = `True`)
        Whether exactly one word hangs on ROOT.
    projection : `str`, optional (default = `"exact"`)
        `"exact"` projects onto the convex hull of the trees, by the active-set method on top of `argmax` (SparseMAP,
        Niculae et al. 2018), until the duality gap is below 1e-9. `"single_head"` projects each word's row onto
        the simplex: the relaxation that Peng et al. (2018) use.

    # Errors

    `ConfigurationError` for another `projection`.
    """

    competing_dimensions = 1
    always_tree = True

    def __init__(self, single_root: bool = True, projection: str = "exact") -> None:
        self.single_root = single_root
        self.projection = one_of("projection", projection, ("exact", "single_head"))

    # Whether the set is that of all projective trees (true) or of all trees (false), whose exact projections are
    # compiled as a whole. A subclass over any other set of trees says `None`, and its projection goes by its argmax.
    projective: Optional[bool] = None

    # The functions of `spigot_allennlp.functional` that a subclass is made of, as static methods.
    _best_heads: Callable[..., torch.Tensor]
    _tree_log_partition: Callable[..., torch.Tensor]
    _tree_marginals: Callable[..., torch.Tensor]
    _sample_heads: Callable[..., torch.Tensor]
    _top_k_heads: Callable[..., Tuple[torch.Tensor, torch.Tensor]]

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return arcs_from_heads(self._best_heads(scores, mask, self.single_root), scores.dtype)

    def _total(self, parts: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # Where there is no tree, the best heads are those of no word or include a forbidden one.
        headless = (parts.sum(-1) == 0) & mask
        return self._score(parts, scores).masked_fill(headless[:, 1:].any(-1), -torch.inf)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._tree_log_partition(scores, mask, self.single_root)

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._tree_marginals(scores, mask, self.single_root)

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.projection == "single_head":
            return project_simplex(point, self.legal_parts(point, mask))
        return super()._project(point, mask)

    def _argmax_oracle(self, mask: torch.Tensor) -> Union[Oracle, CompiledOracle]:
        if self.projective is None:
            return super()._argmax_oracle(mask)
        return TreeOracle(mask, self.projective, self.single_root)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        return arcs_from_heads(self._sample_heads(scores, mask, num_samples, self.single_root), scores.dtype)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        heads, totals = self._top_k_heads(scores, mask, k, self.single_root)
        return arcs_from_heads(heads, scores.dtype), totals
