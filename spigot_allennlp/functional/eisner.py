"""
Projective dependency trees: the maximum, the log-partition function, marginals, samples and the k best.
"""

from typing import Any, Optional, Tuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from spigot_allennlp.functional import _eisner_kernels as kernels
from spigot_allennlp.functional.runtime import from_numpy, parallel_for, to_numpy


def projective_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    lengths = to_numpy(mask.sum(-1))
    values = to_numpy(scores)
    heads = np.full(scores.shape[:2], -1)
    parallel_for(
        lambda start, stop: kernels.argmax(values, lengths, single_root, start, stop, heads), len(lengths)
    )
    return from_numpy(heads, like=scores)


def _inside_outside(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, direction: Optional[torch.Tensor] = None
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = to_numpy(mask.sum(-1))
    values = to_numpy(scores.double())
    directions = np.zeros_like(values) if direction is None else to_numpy(direction.double())
    log_partition = np.zeros(len(values))
    marginals = np.zeros_like(values)
    derivative = np.zeros_like(values)
    parallel_for(
        lambda start, stop: kernels.inside_outside(
            values, directions, lengths, single_root, start, stop, log_partition, marginals, derivative
        ),
        len(lengths),
    )
    return tuple(
        from_numpy(a, like=scores, dtype=scores.dtype) for a in (log_partition, marginals, derivative)
    )


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        log_partition, marginals, _ = _inside_outside(scores, mask, single_root)
        ctx.single_root = single_root
        ctx.save_for_backward(scores, mask, marginals)
        return log_partition

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, mask, marginals = ctx.saved_tensors
        marginals = _Marginals.apply(scores, mask, ctx.single_root, marginals)
        return gradient[:, None, None] * marginals, None, None


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: torch.Tensor,
        mask: torch.Tensor,
        single_root: bool,
        marginals: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        ctx.single_root = single_root
        ctx.save_for_backward(scores, mask)
        return _inside_outside(scores, mask, single_root)[1] if marginals is None else marginals.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, mask = ctx.saved_tensors
        return _inside_outside(scores, mask, ctx.single_root, gradient)[2], None, None, None


def projective_log_partition(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True
) -> torch.Tensor:
    return _LogPartition.apply(scores, mask, single_root)


def projective_marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    return _Marginals.apply(scores, mask, single_root)
