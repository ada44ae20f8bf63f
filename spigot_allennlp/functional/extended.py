"""
Extended numbers, one at a time: `mantissa * 2 ** (256 * exponent)`, for weights that floating point cannot hold. The
mantissa is a float or, for derivatives, a complex number; its real part is 0 or between 2 ** -128 and 2 ** 128. The
exponent is a float that holds an integer. (`lanes.py` has the numbers that are computed with side by side.)
"""

import math

from spigot_allennlp.functional.runtime import kernel

RADIX = 2.0**256
LOG_RADIX = 256 * math.log(2.0)
_INVERSE_RADIX = 2.0**-256
_UPPER = 2.0**128
_LOWER = 2.0**-128

# The exponent of zero: below the exponent of any product of weights.
ZERO_EXPONENT = -(2.0**60)


@kernel
def normalise(m, x):
    if m.real >= _UPPER:
        return m * _INVERSE_RADIX, x + 1.0
    if m.real < _LOWER:
        return m * RADIX, x - 1.0
    return m, x


@kernel
def add(m, x, n, y):
    """The sum of two extended numbers."""
    gap = x - y
    if gap == 0.0:
        m, x = m + n, x
    elif gap == 1.0:
        m, x = m + n * _INVERSE_RADIX, x
    elif gap == -1.0:
        m, x = m * _INVERSE_RADIX + n, y
    elif gap < 0.0:
        m, x = n, y
    if m.real >= _UPPER:
        m, x = m * _INVERSE_RADIX, x + 1.0
    return m, x


@kernel
def add_multiple(target, target_x, factor, factor_x, source, source_x):
    """`target += factor * source` for arrays of extended numbers."""
    for j in range(target.size):
        m, x = normalise(factor * source[j], factor_x + source_x[j])
        target[j], target_x[j] = add(target[j], target_x[j], m, x)
