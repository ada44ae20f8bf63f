"""
What the kernels over projective trees share: Eisner's chart over the tokens of a sentence, ROOT at its left end.

A *complete* span `[h, e]` is the head `h` with everything that it governs on the side of `e`, as far as `e`;
`h < e` or `h > e`. An *incomplete* span `[h, m]` is the arc `h -> m` with all words in between. Both grow
from smaller ones:

    joined[i, j]     = sum over i <= r < j of  complete[i, r] * complete[j, r + 1]
    incomplete[h, m] = joined[h, m] * weight of the arc h -> m
    complete[h, e]   = sum over m in (h, e] of  incomplete[h, m] * complete[m, e]

Each tree has one derivation: `r` and `m` can be read off it. ROOT has no head, hence no span that ends at it;
a single root is a `joined[0, j]` without other words on ROOT's side (`r = 0`).

Every chart is stored both ways, `complete[h, e]` and `complete_t[e, h]`, so that all sums run over contiguous
cells, and the spans that end at `j` are finished before any that ends at `j + 1`, so that one of the two
operands stays in the fastest cache. The sentences of a batch lie side by side in lanes (`lanes.py`): `order`
is `(blocks, width)`, the sentence in each lane or -1, best sorted by length. Words beyond a lane's sentence
have no arcs and govern nothing.
"""

from typing import Any, Callable

import numpy as np
import torch

from spigot_allennlp.functional.lanes import BYTES, lane_kernel, load, splat, store, where_greater
from spigot_allennlp.functional.runtime import FORBIDDEN, parallel_for


def chart(tokens: int, dtype: np.dtype, *kinds: Callable, stored_as: Any = None) -> Any:
    """An uninitialized chart of lanes (see `lanes.py`), or of `kinds`, the outermost first; aligned."""
    if kinds:
        return kinds[0](*(chart(tokens, dtype, *kinds[1:]) for _ in range(2)))
    shape = (tokens, tokens, BYTES // np.dtype(dtype).itemsize)
    stored_as = np.dtype(stored_as or dtype)
    size = int(np.prod(shape)) * stored_as.itemsize
    memory = np.empty(size + BYTES, np.uint8)
    first = -memory.ctypes.data % BYTES
    return memory[first : first + size].view(stored_as).reshape(shape)


def for_blocks(run: Callable[[np.ndarray, int, int], None], lengths: np.ndarray, dtype: np.dtype) -> None:
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


@lane_kernel
def read(values, sentences, lengths, fill, lanes):
    """
    Copy the block's `(dependents, heads)` matrices into lanes, `fill` where there is no arc; row 0 is left
    alone. Returns the largest number of tokens.
    """
    tokens = 0
    for sentence in sentences:
        if sentence >= 0:
            tokens = max(tokens, lengths[sentence])
    for lane in range(len(sentences)):
        sentence = sentences[lane]
        length = lengths[sentence] if sentence >= 0 else 0
        for dependent in range(1, length):
            for head in range(length):
                lanes[dependent, head, lane] = values[sentence, dependent, head]
            lanes[dependent, dependent, lane] = fill
            lanes[dependent, length:tokens, lane] = fill
        for dependent in range(max(length, 1), tokens):
            lanes[dependent, :tokens, lane] = fill
    return tokens


@lane_kernel
def subtract_maxima(scores, dependent, tokens):
    """
    Subtract the highest score of any head. Each word has one head, so the same constant leaves all trees: it
    costs no exactness, and saves it where scores are large. A word with no head at all keeps its forbidden
    arcs forbidden.
    """
    floor = splat(scores, FORBIDDEN)
    highest = splat(scores, FORBIDDEN / 2)
    for head in range(tokens):
        score = load(scores, dependent, head)
        highest = where_greater(score, highest, score, highest)
    for head in range(tokens):
        score = load(scores, dependent, head) - highest
        store(scores, dependent, head, where_greater(floor, score, floor, score))
    return highest
