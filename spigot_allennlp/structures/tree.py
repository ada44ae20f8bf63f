from typing import Callable, Optional, Tuple, Union

import torch

from spigot_allennlp.checks import at_least_one, one_of
from spigot_allennlp.functional import independent
from spigot_allennlp.functional.projections import project_simplex
from spigot_allennlp.functional.runtime import FORBIDDEN
from spigot_allennlp.functional.sparsemap import CompiledOracle, Oracle, TreeOracle
from spigot_allennlp.functional.trees import arcs_from_heads
from spigot_allennlp.structures.latent_structure import LatentStructure


class Tree(LatentStructure):
    """
    Dependency trees: arborescences rooted at ROOT. What projective and non-projective trees share.

    With `num_labels`, each arc has one label, and parts are `(batch, dependents, heads, labels)`. A labeled tree is a
    tree and a label for each arc, so that its best labels, or the sums over labels, decompose over arcs.

    # Parameters

    single_root : `bool`, optional (default = `True`)
        Whether exactly one word hangs on ROOT.
    projection : `str`, optional (default = `"exact"`)
        `"exact"` projects onto the convex hull of the trees, by the active-set method on top of `argmax` (SparseMAP,
        Niculae et al. 2018), until the duality gap is below 1e-9. `"single_head"` projects each word's row onto
        the simplex: the relaxation that Peng et al. (2018) use.
    num_labels : `int`, optional (default = `None`)
        Number of labels of an arc; without it, arcs have no labels.

    # Errors

    `ConfigurationError` for another `projection`, and for a number of labels below 1.
    """

    competing_dimensions = 1
    always_tree = True

    def __init__(self, single_root: bool = True, projection: str = "exact", num_labels: Optional[int] = None) -> None:
        self.single_root = single_root
        self.projection = one_of("projection", projection, ("exact", "single_head"))
        self.num_labels = num_labels
        if num_labels is not None:
            at_least_one("num_labels", num_labels)
            self.dimensions = (*LatentStructure.dimensions, "labels")
            self.competing_dimensions = 2
            self.labeled = True

    # Whether the set has projective trees only (true) or all trees (false), whose exact projections are
    # compiled as a whole. A subclass over any other set of trees says `None`, and its projection goes by its argmax.
    projective: Optional[bool] = None

    # The functions of `spigot_allennlp.functional` that a subclass is made of, as static methods.
    _best_heads: Callable[..., torch.Tensor]
    _tree_log_partition: Callable[..., torch.Tensor]
    _tree_marginals: Callable[..., torch.Tensor]
    _sample_heads: Callable[..., torch.Tensor]
    _top_k_heads: Callable[..., Tuple[torch.Tensor, torch.Tensor]]

    def legal_parts(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        legal = super().legal_parts(scores, mask)
        return legal if self.num_labels is None else legal.unsqueeze(-1).expand_as(scores)

    def _check_mask(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.num_labels is not None and scores.size(-1) != self.num_labels:
            raise ValueError(
                f"scores have shape {tuple(scores.shape)}; a {self._name()} with num_labels = {self.num_labels} takes "
                f"({', '.join(self.dimensions)})"
            )
        return super()._check_mask(scores, mask)

    # Labels

    def _best_labels(self, scores: torch.Tensor) -> torch.Tensor:
        """The arcs' scores with their best labels."""
        return scores if self.num_labels is None else scores.amax(-1)

    def _all_labels(self, scores: torch.Tensor) -> torch.Tensor:
        """The arcs' scores for sums: of all their labels."""
        # Finite, since the gradient of logsumexp over nothing but -inf is NaN.
        return scores if self.num_labels is None else scores.clamp(min=FORBIDDEN).logsumexp(-1)

    @staticmethod
    def _labels_of(scores: torch.Tensor, heads: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        The scores `(batch, tokens, labels)` of each arc's labels in trees `(batch, tokens)`, and where there is an arc.
        """
        index = heads.clamp(min=0)[..., None, None].expand(-1, -1, 1, scores.size(-1))
        labels = scores.gather(2, index).squeeze(2)
        return labels, (heads >= 0).unsqueeze(-1).expand_as(labels)

    # The primitives

    def _argmax(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        heads = self._best_heads(self._best_labels(scores), mask, self.single_root)
        arcs = arcs_from_heads(heads, scores.dtype)
        if self.num_labels is None:
            return arcs
        return arcs.unsqueeze(-1) * independent.argmax(*self._labels_of(scores, heads)).unsqueeze(2)

    def _total(self, parts: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # Where there is no tree, the best heads are no word's or include a forbidden one.
        headless = (parts.flatten(2).sum(-1) == 0) & mask
        return self._score(parts, scores).masked_fill(headless[:, 1:].any(-1), -torch.inf)

    def _log_partition(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._tree_log_partition(self._all_labels(scores), mask, self.single_root)

    def _marginals(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        arcs = self._tree_marginals(self._all_labels(scores), mask, self.single_root)
        if self.num_labels is None:
            return arcs
        return arcs.unsqueeze(-1) * scores.clamp(min=FORBIDDEN).softmax(-1)

    def _project(self, point: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.projection == "single_head":
            legal = self.legal_parts(point, mask)
            return project_simplex(point.flatten(2), legal.flatten(2)).view(point.shape)
        return super()._project(point, mask)

    def _argmax_oracle(self, mask: torch.Tensor) -> Union[Oracle, CompiledOracle]:
        if self.projective is None or self.num_labels is not None:
            return super()._argmax_oracle(mask)
        return TreeOracle(mask, self.projective, self.single_root)

    def _sample(self, scores: torch.Tensor, mask: torch.Tensor, num_samples: int) -> torch.Tensor:
        heads = self._sample_heads(self._all_labels(scores), mask, num_samples, self.single_root)
        arcs = arcs_from_heads(heads, scores.dtype)
        if self.num_labels is None:
            return arcs
        repeated = scores.expand(num_samples, *scores.shape).flatten(0, 1)
        labels = independent.sample(*self._labels_of(repeated, heads.flatten(0, 1)), 1)
        return arcs.unsqueeze(-1) * labels.view(*heads.shape, 1, -1)

    def _top_k(self, scores: torch.Tensor, mask: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
        heads, totals = self._top_k_heads(self._best_labels(scores), mask, k, self.single_root)
        if self.num_labels is None:
            return arcs_from_heads(heads, scores.dtype), totals
        # With other labels a tree is no better than with its best, so that the k best trees are enough.
        repeated = scores.unsqueeze(1).expand(-1, k, *scores.shape[1:]).flatten(0, 1)
        # shape: (batch * k, k, tokens), (batch * k, k)
        labels, labeled_totals = independent.top_k(*self._labels_of(repeated, heads.flatten(0, 1)), k)
        # shape: (batch, k * k)
        labeled_totals = labeled_totals.view(len(scores), k, k).masked_fill(totals.isneginf().unsqueeze(-1), -torch.inf)
        totals, best = labeled_totals.flatten(1).topk(k, dim=-1)
        index = best.unsqueeze(-1).expand(-1, -1, heads.size(-1))
        labels = labels.reshape(len(scores), k * k, -1).gather(1, index)
        heads = heads.gather(1, index.div(k, rounding_mode="floor"))
        heads = heads.masked_fill(totals.isneginf().unsqueeze(-1), -1)
        arcs = arcs_from_heads(heads, scores.dtype)
        chosen = torch.nn.functional.one_hot(labels, self.num_labels).to(scores.dtype)
        return arcs.unsqueeze(-1) * chosen.unsqueeze(-2), totals
