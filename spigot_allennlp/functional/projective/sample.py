"""
Samples from the Gibbs distribution over projective trees.
"""

import numpy as np
import torch

from spigot_allennlp.functional.draws import draw_extended
from spigot_allennlp.functional.lanes import Extended, lane_kernel
from spigot_allennlp.functional.projective.charts import chart, for_blocks, read
from spigot_allennlp.functional.projective.inside_outside import inside, weigh
from spigot_allennlp.functional.runtime import FORBIDDEN, from_numpy, to_numpy


@lane_kernel
def _draw(left, left_row, right, right_row, shift, low, high, lane, number, mantissas, exponents):
    """An `x` from `[low, high)`, in proportion to `left[left_row, x] * right[right_row, x + shift]`."""
    for x in range(low, high):
        mantissas[x - low] = left.mantissa[left_row, x, lane] * right.mantissa[right_row, x + shift, lane]
        exponents[x - low] = left.exponent[left_row, x, lane] + right.exponent[right_row, x + shift, lane]
    size = high - low
    return low + max(draw_extended(mantissas[:size], exponents[:size], 1.0, number), 0)


@lane_kernel
def _sample(scores, order, lengths, single_root, charts, buffer, uniforms, heads, start, stop):
    """
    Trees from the Gibbs distribution, from the top of the inside chart down.

    # Parameters

    charts : `tuple`
        Five charts of `Extended` numbers, to work in, and `buffer`, one of plain lanes.
    uniforms : `np.ndarray`
        `(samples, batch, 2 * tokens)`: random numbers from [0, 1). A tree takes two for each arc.
    heads : `np.ndarray`
        `(samples, batch, tokens)`, output; written at the words only.
    """
    weights, complete, complete_t, incomplete, incomplete_t = charts
    width = order.shape[1]
    shifts = np.empty((scores.shape[1], 2, width), buffer.dtype)
    mantissas, exponents = np.empty(scores.shape[1]), np.empty(scores.shape[1])
    stack = np.empty((2 * scores.shape[1] + 2, 2), np.int64)
    for block in range(start, stop):
        tokens = read(scores, order[block], lengths, FORBIDDEN, buffer)
        weigh(buffer, None, tokens, weights, shifts)
        inside(weights, tokens, single_root, complete, complete_t, incomplete, incomplete_t)
        for lane in range(width):
            sentence = order[block, lane]
            if sentence < 0 or lengths[sentence] < 2:
                continue
            for number in range(len(heads)):
                drawn = 0
                stack[0] = 0, lengths[sentence] - 1
                size = 1
                while size > 0:
                    size -= 1
                    head, end = stack[size]
                    if head == end:
                        continue
                    first = head + 1 if head < end else end
                    last = end + 1 if head < end else head
                    uniform = uniforms[number, sentence, drawn]
                    word = _draw(
                        incomplete, head, complete_t, end, 0, first, last, lane, uniform, mantissas, exponents
                    )  # fmt: skip
                    heads[number, sentence, word] = head
                    low, high = min(head, word), max(head, word)
                    last = 1 if low == 0 and single_root else high
                    uniform = uniforms[number, sentence, drawn + 1]
                    r = _draw(complete, low, complete, high, 1, low, last, lane, uniform, mantissas, exponents)
                    drawn += 2
                    stack[size] = word, end
                    stack[size + 1] = low, r
                    stack[size + 2] = high, r + 1
                    size += 3


def projective_sample(
    scores: torch.Tensor, mask: torch.Tensor, num_samples: int, single_root: bool = True
) -> torch.Tensor:
    """
    Independent, exact samples from `p(y) = exp(<scores, y>) / Z` over all projective trees `y`, by torch's global
    random state.

    # Returns

    `torch.Tensor`
        `(num_samples, batch, tokens)`: heads, as `projective_heads` returns them.
    """
    values, lengths = to_numpy(scores.double()), to_numpy(mask.sum(-1))
    batch_size, tokens = values.shape[:2]
    heads = np.full((num_samples, batch_size, tokens), -1)
    uniforms = to_numpy(torch.rand(num_samples, batch_size, 2 * tokens, dtype=torch.double))

    def run(order: np.ndarray, start: int, stop: int) -> None:
        charts = tuple(chart(tokens, values.dtype, Extended) for _ in range(5))
        buffer = chart(tokens, values.dtype)
        _sample(values, order, lengths, single_root, charts, buffer, uniforms, heads, start, stop)

    for_blocks(run, lengths, values.dtype)
    return from_numpy(heads, like=scores)
