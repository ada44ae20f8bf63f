"""
Projective dependency trees: the best, the log-partition function, marginals, samples and the k best.

Arcs are `(batch, dependents, heads)`: `scores[b, d, h]` scores the arc `h -> d`, index 0 is ROOT, and `mask`
is true for ROOT and the words, a prefix of each row. Row 0, the diagonal, padding and whatever stands there
are ignored; there outputs and gradients are 0. A score of -inf forbids an arc. `single_root` allows one word
only under ROOT. Scores are not checked: NaN makes a sentence's log-partition function and marginals NaN.

Everything takes O(n^3) time and O(n^2) memory for n words (Eisner 2000, "Bilexical grammars and their
cubic-time parsing algorithms"), in compiled kernels on the CPU, in as many threads as torch has, or, where
`routes.py` says so, in torch operations on a GPU (`_eisner_batched.py`); results are on the device of the scores.
"""

from typing import Any, Callable, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from spigot_allennlp.functional import _eisner_batched as batched
from spigot_allennlp.functional import _eisner_kernels as kernels
from spigot_allennlp.functional import routes
from spigot_allennlp.functional._lanes import BYTES, Dual, Extended
from spigot_allennlp.functional.runtime import from_numpy, parallel_for, to_numpy
from spigot_allennlp.functional.trees import legal_arcs


def projective_heads(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The projective tree with the highest sum of arc scores. Of several, always the same one.

    # Parameters

    scores : `torch.Tensor`
        `(batch, tokens, tokens)`, float32 or float64.
    mask : `torch.Tensor`
        `(batch, tokens)`, boolean.
    single_root : `bool`, optional (default = `True`)

    # Returns

    `torch.Tensor`
        `(batch, tokens)`: the head of each word, -1 for ROOT and padding. Where every tree has a forbidden
        arc, a tree with as few of them as possible.
    """
    if routes.batched_on_device("projective argmax", scores):
        return batched.projective_heads(scores, mask, single_root)
    values, lengths = to_numpy(scores), to_numpy(mask.sum(-1))
    tokens = values.shape[1]
    heads = np.full(values.shape[:2], -1)

    def run(order: np.ndarray, start: int, stop: int) -> None:
        charts = tuple(_chart(tokens, values.dtype) for _ in range(4))
        indices = tuple(_chart(tokens, values.dtype, stored_as=np.int16) for _ in range(2))
        kernels.argmax(values, order, lengths, single_root, start, stop, charts, indices, heads)

    _for_blocks(run, lengths, values.dtype)
    return from_numpy(heads, like=scores)


def projective_log_partition(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    `log sum_y exp(<scores, y>)` over all projective trees `y`. Its gradient are the marginals; differentiable
    twice.

    # Returns

    `torch.Tensor`
        `(batch,)`: 0 for a row without words; -inf, with gradient 0, where every tree has a forbidden arc.
    """
    return _LogPartition.apply(scores, mask, single_root)


def projective_marginals(scores: torch.Tensor, mask: torch.Tensor, single_root: bool = True) -> torch.Tensor:
    """
    The probability of each arc under `p(y) = exp(<scores, y>) / Z` over all projective trees `y`: each word's
    row sums to 1. Differentiable once: the gradient is the product with the Hessian of `log Z`, found by
    running inside-outside on dual numbers, without an autograd graph through the chart.

    # Returns

    `torch.Tensor`
        `(batch, tokens, tokens)`; all 0 where every tree has a forbidden arc.
    """
    return _Marginals.apply(scores, mask, single_root)


def projective_sample(
    scores: torch.Tensor,
    mask: torch.Tensor,
    num_samples: int,
    single_root: bool = True,
    generator: Optional[torch.Generator] = None,
) -> torch.Tensor:
    """
    Independent, exact samples from `p(y) = exp(<scores, y>) / Z` over all projective trees `y`.

    # Returns

    `torch.Tensor`
        `(num_samples, batch, tokens)`: heads as those of `projective_heads`.
    """
    values, lengths = to_numpy(scores.double()), to_numpy(mask.sum(-1))
    batch_size, tokens = values.shape[:2]
    heads = np.full((num_samples, batch_size, tokens), -1)
    device = "cpu" if generator is None else generator.device
    shape = (num_samples, batch_size, 2 * tokens)
    uniforms = to_numpy(torch.rand(shape, generator=generator, dtype=torch.double, device=device))

    def run(order: np.ndarray, start: int, stop: int) -> None:
        charts = tuple(_chart(tokens, values.dtype, Extended) for _ in range(5))
        buffer = _chart(tokens, values.dtype)
        kernels.sample(values, order, lengths, single_root, start, stop, charts, buffer, uniforms, heads)

    _for_blocks(run, lengths, values.dtype)
    return from_numpy(heads, like=scores)


def projective_top_k(
    scores: torch.Tensor, mask: torch.Tensor, k: int, single_root: bool = True
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    The `k` best projective trees, distinct and from the best down.

    # Returns

    `Tuple[torch.Tensor, torch.Tensor]`
        `(batch, k, tokens)`: heads as those of `projective_heads`, and `(batch, k)`: the trees' scores,
        without gradient. Where there are fewer than `k` trees without forbidden arcs, heads of -1 and scores
        of -inf.
    """
    values, lengths = to_numpy(scores.double()), to_numpy(mask.sum(-1))
    batch_size, tokens = values.shape[:2]
    heads = np.full((batch_size, k, tokens), -1)
    totals = np.full((batch_size, k), -np.inf)
    parallel_for(
        lambda start, stop: kernels.top_k(values, lengths, single_root, k, start, stop, heads, totals),
        batch_size,
    )
    return from_numpy(heads, like=scores), from_numpy(totals, like=scores, dtype=scores.dtype)


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, mask: torch.Tensor, single_root: bool) -> torch.Tensor:
        log_partition, marginals = _inside_outside(scores, mask, single_root)
        ctx.single_root = single_root
        ctx.save_for_backward(scores, mask, marginals)
        return log_partition

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, mask, marginals = ctx.saved_tensors
        # A function of the scores, so that it can be differentiated, but one that is already known.
        marginals = _Marginals.apply(scores, mask, ctx.single_root, marginals)
        return gradient[:, None, None] * marginals, None, None


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: torch.Tensor,
        mask: torch.Tensor,
        single_root: bool,
        known: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        ctx.single_root = single_root
        ctx.save_for_backward(scores, mask)
        marginals = _inside_outside(scores, mask, single_root)[1] if known is None else known
        # Rounding makes no probability larger than 1. The gradient is that of the exact ones.
        return marginals.clamp(0.0, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        scores, mask = ctx.saved_tensors
        # Whatever stands where there is no arc, NaN included, stays there.
        gradient = gradient.masked_fill(~legal_arcs(mask), 0.0)
        # Linear in the gradient, and of any scale: whatever its loss was multiplied by must not cost range.
        scale = gradient.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        derivative = _inside_outside(scores, mask, ctx.single_root, gradient / scale)[1]
        return derivative * scale, None, None, None


class _Arithmetic(NamedTuple):
    dtype: Any
    kind: Optional[Callable]
    # No number may reach it; see `_eisner_kernels.inside_outside`.
    limit: float


# From fast to certain. With these limits a million sums (100 words) lose less than one rounding error.
_FLOAT32, _FLOAT64 = (
    _Arithmetic(dtype, None, float(1e-6 * np.finfo(dtype).eps / np.finfo(dtype).tiny))
    for dtype in (np.float32, np.float64)
)
_EXTENDED = _Arithmetic(np.float64, Extended, np.inf)


def _inside_outside(
    scores: torch.Tensor, mask: torch.Tensor, single_root: bool, direction: Optional[torch.Tensor] = None
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    `(batch,)`, the log-partition function, and `(batch, tokens, tokens)`, the marginals or, given a direction
    of the same shape, their derivative in this direction.
    """
    operation = "projective marginals" if direction is None else "gradient of projective marginals"
    if routes.batched_on_device(operation, scores):
        return batched.inside_outside(scores, mask, single_root, direction)
    results = _inside_outside_arrays(
        to_numpy(scores),
        None if direction is None else to_numpy(direction),
        to_numpy(mask.sum(-1)),
        single_root,
        *((_FLOAT32,) if scores.dtype == torch.float else ()),
        _FLOAT64,
        _EXTENDED,
    )
    return tuple(from_numpy(result, like=scores, dtype=scores.dtype) for result in results)


def _inside_outside_arrays(
    scores: np.ndarray,
    direction: Optional[np.ndarray],
    lengths: np.ndarray,
    single_root: bool,
    arithmetic: _Arithmetic,
    *more_certain: _Arithmetic,
) -> Tuple[np.ndarray, np.ndarray]:
    tokens = scores.shape[1]
    dtype = np.dtype(arithmetic.dtype)
    values = scores.astype(dtype, copy=False)
    directions = None if direction is None else direction.astype(dtype, copy=False)
    log_partition = np.zeros(len(values))
    marginals = np.zeros_like(values)
    certified = lengths < 2

    def run(order: np.ndarray, start: int, stop: int) -> None:
        kinds = [arithmetic.kind] if arithmetic.kind else []
        if directions is not None:
            kinds.insert(0, Dual)
        charts = tuple(_chart(tokens, dtype, *kinds) for _ in range(8))
        buffers = _chart(tokens, dtype), _chart(tokens, dtype)
        kernels.inside_outside(
            values, directions, order, lengths, single_root, start, stop, arithmetic.limit, charts, buffers,
            log_partition, marginals, certified,
        )  # fmt: skip

    _for_blocks(run, lengths, dtype)
    failed = np.flatnonzero(~certified)
    if failed.size:
        log_partition[failed], marginals[failed] = _inside_outside_arrays(
            scores[failed],
            None if direction is None else direction[failed],
            lengths[failed],
            single_root,
            *more_certain,
        )
    return log_partition, marginals


def _chart(tokens: int, dtype: np.dtype, *kinds: Callable, stored_as: Any = None) -> Any:
    """An uninitialised chart of lanes (see `_lanes.py`), or of `kinds`, the outermost first; aligned."""
    if kinds:
        return kinds[0](*(_chart(tokens, dtype, *kinds[1:]) for _ in range(2)))
    shape = (tokens, tokens, BYTES // np.dtype(dtype).itemsize)
    stored_as = np.dtype(stored_as or dtype)
    size = int(np.prod(shape)) * stored_as.itemsize
    memory = np.empty(size + BYTES, np.uint8)
    first = -memory.ctypes.data % BYTES
    return memory[first : first + size].view(stored_as).reshape(shape)


def _for_blocks(run: Callable[[np.ndarray, int, int], None], lengths: np.ndarray, dtype: np.dtype) -> None:
    """
    Put sentences of similar length side by side, and call `run(order, start, stop)` with `order` `(blocks,
    width)` and ranges of blocks, from several threads.
    """
    width = BYTES // np.dtype(dtype).itemsize
    order = np.full(-(-len(lengths) // width) * width, -1)
    order[: len(lengths)] = np.argsort(-lengths, kind="stable")
    order = order.reshape(-1, width)
    # Each thread gets a contiguous range of blocks: deal them out, so that all get as many long ones.
    threads = torch.get_num_threads()
    order = np.concatenate([order[thread::threads] for thread in range(threads)])
    parallel_for(lambda start, stop: run(order, start, stop), len(order))
