"""
Drawing from weights, in kernels.
"""

import math

import numpy as np

from spigot_allennlp.functional.runtime import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@kernel
def uniform(state):
    """A number in [0, 1): SplitMix64 (Steele, Lea & Flood 2014). `state`: `(1,)`, uint64."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.int64(z >> np.uint64(11)) * 2.0**-53


@kernel
def draw(weights, number):
    """An index, with probability proportional to its weight, by a `number` from [0, 1); -1 if all weights are 0."""
    total = 0.0
    for i in range(weights.size):
        total += weights[i]
    point = number * total
    drawn = -1
    for i in range(weights.size):
        if weights[i] > 0.0:
            drawn = i
            point -= weights[i]
            if point < 0.0:
                break
    return drawn


@kernel
def draw_extended(mantissas, exponents, bits, number):
    """As `draw`, for weights `mantissas * 2 ** (bits * exponents)`. Overwrites the mantissas."""
    top = -np.inf
    for i in range(mantissas.size):
        if mantissas[i] > 0.0:
            top = max(top, exponents[i])
    for i in range(mantissas.size):
        if mantissas[i] > 0.0:
            mantissas[i] = math.ldexp(mantissas[i], np.int32(max(bits * (exponents[i] - top), -2000.0)))
    return draw(mantissas, number)
