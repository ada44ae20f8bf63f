"""
Non-projective dependency trees: spanning arborescences from ROOT.

Everywhere, `scores` is `(batch, tokens, tokens)` with `scores[b, d, h]` the score of the arc `h -> d`,
token 0 is ROOT, and `mask` is `(batch, tokens)`, true for ROOT and for real tokens, a prefix of each row. A
score of -inf forbids the arc. With `single_root`, exactly one word has ROOT as its head, else at least one.
All is computed in float64, whatever the type of the scores, in compiled kernels on the CPU or, where
`routes.py` says so, in torch operations on a GPU (`_spanning_tree_batched.py`); results are on the device of
the scores.
"""

from typing import Any, Callable, Optional, Tuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from spigot_allennlp.functional import _spanning_tree_kernels as kernels
from spigot_allennlp.functional import routes
from spigot_allennlp.functional._spanning_tree_batched import matrix_tree
from spigot_allennlp.functional.runtime import from_numpy, parallel_for, to_numpy

# The imaginary part that stands for an infinitesimal: its square is lost in rounding.
_INFINITESIMAL = 2.0**-50 * 1j


def _read(scores: torch.Tensor, mask: torch.Tensor) -> Tuple[np.ndarray, np.ndarray]:
    """The scores in float64, and the number of words of each sentence."""
    return to_numpy(scores.double()), to_numpy((mask.sum(-1) - 1).clamp(min=0))


def nonprojective_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The highest-scoring tree, by Chu-Liu-Edmonds in Tarjan's (1977) O(n^2) form. A single root is had
    exactly, in the same time, by contracting everything before an arc from ROOT is chosen (Gabow & Tarjan
    1984; Stanojevic & Cohen 2021). Ties are broken by position only, so a sentence's tree does not depend
    on its batch.

    # Returns

    `torch.LongTensor`
        `(batch, tokens)`: the head of each word, 0 for ROOT; -1 at ROOT and padding. Where -inf leaves no
        tree, some tree, which scores -inf.
    """
    values, lengths = _read(scores, mask)
    heads = np.full(mask.shape, -1)
    parallel_for(lambda start, stop: kernels.best_tree(values, lengths, single_root, heads, start, stop), len(values))
    return from_numpy(heads, like=scores)


def nonprojective_top_k(
    scores: torch.Tensor, mask: torch.Tensor, k: int, single_root: bool = True
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The k best distinct trees in order, by Lawler's (1972) partition of the set of trees.

    # Returns

    `Tuple[torch.LongTensor, torch.Tensor]`
        Heads, `(batch, k, tokens)` as in `nonprojective_heads`, and the trees' scores, `(batch, k)`,
        differentiable. Where there are fewer than k trees, heads of -1 and scores of -inf follow.
    """
    values, lengths = _read(scores, mask)
    heads = np.full((mask.size(0), k, mask.size(1)), -1)
    parallel_for(
        lambda start, stop: kernels.best_trees(values, lengths, k, single_root, heads, start, stop),
        len(values),
    )
    heads = from_numpy(heads, like=scores)
    arcs = scores.unsqueeze(1).expand(-1, k, -1, -1).gather(-1, heads.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    # Added up in float64: rounding a sorted list leaves it sorted.
    totals = arcs.double().masked_fill(heads < 0, 0.0).sum(-1)
    missing = (heads < 0).all(-1)
    missing[:, 0] &= mask.sum(-1) > 1
    return heads, totals.masked_fill(missing, -float("inf")).to(scores.dtype)


def _log_partitions_by_kernel(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> np.ndarray:
    """In float64."""
    values, lengths = _read(scores, mask)
    results = np.empty(len(values))
    parallel_for(
        lambda start, stop: kernels.log_partitions(values, lengths, single_root, results, start, stop),
        len(values),
    )
    return results


def _marginals_by_kernel(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, tangent: Optional[torch.Tensor] = None
) -> np.ndarray:
    """
    Marginals in float64; given a tangent, their derivative as the scores move along it.
    """
    values, lengths = _read(scores, mask)
    unit = 0.0 if tangent is None else _INFINITESIMAL
    direction = values if tangent is None else to_numpy(tangent.double())
    dtype = np.asarray(unit).dtype
    results = np.zeros(values.shape)

    def run(start: int, stop: int) -> None:
        most = int(lengths[start:stop].max())
        graphs = np.empty((most.bit_length() + 2, most, most + 1), dtype)
        escape = np.empty((most, most), dtype)
        kernels.arc_marginals(values, direction, unit, lengths, single_root, graphs, escape, results, start, stop)

    parallel_for(run, len(values))
    return results


def _log_partitions(scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
    """In the scores' type."""
    if routes.batched_on_device("matrix-tree log-partition", scores):
        results, _, certified = matrix_tree(scores, mask, single_root)
        return _mended(results, certified, _log_partitions_by_kernel, scores, mask, single_root)
    return from_numpy(_log_partitions_by_kernel(scores, mask, single_root), like=scores, dtype=scores.dtype)


def _marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool, *tangent: torch.Tensor) -> torch.Tensor:
    """As `_marginals_by_kernel`, in the scores' type."""
    operation = "gradient of matrix-tree marginals" if tangent else "matrix-tree marginals"
    if routes.batched_on_device(operation, scores):
        _, results, certified = matrix_tree(scores, mask, single_root, *tangent)
        return _mended(results, certified, _marginals_by_kernel, scores, mask, single_root, *tangent)
    return from_numpy(_marginals_by_kernel(scores, mask, single_root, *tangent), like=scores, dtype=scores.dtype)


def _mended(
    results: torch.Tensor,
    certified: torch.Tensor,
    by_kernel: Callable[..., np.ndarray],
    scores: torch.Tensor,
    mask: torch.Tensor,
    single_root: bool,
    *tangent: torch.Tensor,
) -> torch.Tensor:
    """The results, with those of the kernel where they are not certified, in the scores' type."""
    rows = (~certified).nonzero().squeeze(-1)
    if len(rows):
        exact = by_kernel(scores[rows], mask[rows], single_root, *(each[rows] for each in tangent))
        results = results.index_copy(0, rows, from_numpy(exact, like=scores))
    return results.to(scores.dtype)


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        ctx.save_for_backward(scores, mask)
        ctx.single_root = single_root
        # Rounding makes no probability larger than 1. The gradient is that of the exact ones.
        return _marginals(scores, mask, single_root).clamp(0.0, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[torch.Tensor, None, None]:
        # The Jacobian is the log-partition's Hessian, hence symmetric: its transpose times a vector is a
        # derivative along it.
        scores, mask = ctx.saved_tensors
        return _marginals(scores, mask, ctx.single_root, gradient), None, None


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        ctx.save_for_backward(scores, mask)
        ctx.single_root = single_root
        return _log_partitions(scores, mask, single_root)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[torch.Tensor, None, None]:
        scores, mask = ctx.saved_tensors
        marginals = nonprojective_marginals(scores, mask, ctx.single_root)
        return gradient[:, None, None] * marginals, None, None


def nonprojective_log_partition(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The logarithm of the sum over trees of the exponential of their scores, by the matrix-tree theorem (Koo
    et al. 2007), as an elimination without subtractions (Grassmann, Taksar & Heyman 1985), which is exact
    on ill-conditioned Laplacians. Twice differentiable.

    # Returns

    `torch.Tensor`
        `(batch,)`: 0 for a sentence without words, -inf for one without a tree.
    """
    return _LogPartition.apply(scores, mask, single_root)


def nonprojective_marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The probability of each arc under the Gibbs distribution over trees, the gradient of the log-partition,
    with the same exactness. Differentiable.

    # Returns

    `torch.Tensor`
        `(batch, tokens, tokens)`: each word's row adds up to 1; all zeros in a sentence without a tree.
    """
    return _Marginals.apply(scores, mask, single_root)


def nonprojective_sample(
    scores: torch.Tensor,
    mask: torch.Tensor,
    num_samples: int,
    single_root: bool = True,
    generator: Optional[torch.Generator] = None,
) -> torch.Tensor:
    """
    Independent samples from the Gibbs distribution over trees: by Wilson's (1996) random walks, and one arc
    after the other where those would run long. With a single root, the word under ROOT is drawn first, from
    its marginals.

    # Returns

    `torch.LongTensor`
        Heads, `(num_samples, batch, tokens)`, as in `nonprojective_heads`.
    """
    values, lengths = _read(scores, mask)
    marginals = _marginals_by_kernel(scores, mask, single_root=True) if single_root else values
    device = None if generator is None else generator.device
    seeds = torch.randint(2**63 - 1, (num_samples, mask.size(0)), generator=generator, device=device)
    seeds = to_numpy(seeds)
    heads = np.full((num_samples, *mask.shape), -1)
    parallel_for(
        lambda start, stop: kernels.random_trees(values, lengths, marginals, single_root, seeds, heads, start, stop),
        len(values),
    )
    return from_numpy(heads, like=scores)
