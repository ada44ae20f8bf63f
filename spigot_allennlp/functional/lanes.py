"""
Arithmetic on lanes: one number of each of several sentences, side by side in one vector register.

A chart is an array `(rows, columns, width)` whose last axis holds the same cell of `width` sentences, 64
bytes in all: 16 sentences in float32, 8 in float64. numba has no vector type, and LLVM's vectorizer finds
such loops only sometimes and keeps their running sums in memory; so `Lanes` is one, and `load`, `store` and
the operations below are the few instructions that charts need.

The same recurrences run on three kinds of numbers, which are tuples of lanes and of each other, and a kernel
is compiled for the kind of chart that it is given:

- `Lanes`: plain floating point (a chart is an array);
- `Extended(mantissa, exponent)`: the number `mantissa * 2 ** exponent`, whose exponent is a float64 of its
  own. Never under- or overflows for scores that float64 can hold (a chart is an `Extended` of two arrays);
- `Dual(value, tangent)`: a number of either kind with its directional derivative: forward-mode
  differentiation.
"""

import functools
import math
import operator
from typing import Any, Callable, NamedTuple, Optional

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from spigot_allennlp.functional.runtime import kernel

# A register of AVX-512; where registers are shorter, LLVM takes several.
BYTES = 64


def lane_kernel(function: Optional[Callable] = None, **options: Any) -> Callable:
    """
    `runtime.kernel` for functions that use this module. Nothing is re-associated: `Extended` and exponentials
    rely on the order of operations, and sums must not depend on where in a batch a sentence stands.
    """
    if function is None:
        return functools.partial(lane_kernel, **options)
    return kernel(fastmath={"contract"}, **options)(function)


class Dual(NamedTuple):
    value: Any
    tangent: Any


class Extended(NamedTuple):
    mantissa: Any
    exponent: Any


# The exponent of an `Extended` zero: below the exponent of any product of forbidden parts.
_ZERO_EXPONENT = -1e300


class Lanes(types.Type):
    """The numba type of one vector register of floats."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.width = BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")

    @property
    def vector(self) -> ir.VectorType:
        return ir.VectorType(ir.FloatType() if self.dtype == types.float32 else ir.DoubleType(), self.width)

    @property
    def integers(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.dtype.bitwidth), self.width)

    @property
    def mantissa_bits(self) -> int:
        return 23 if self.dtype == types.float32 else 52

    @property
    def bias(self) -> int:
        return 127 if self.dtype == types.float32 else 1023

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [value] * self.width)

    def integer(self, value: int) -> ir.Constant:
        return ir.Constant(self.integers, [value] * self.width)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, fe_type.vector)


def _is(numba_type: types.Type, kind: type) -> bool:
    return isinstance(numba_type, types.BaseNamedTuple) and numba_type.instance_class is kind


def _element(chart: types.Type) -> types.Type:
    """The kind of number in a chart."""
    if isinstance(chart, types.Array):
        return Lanes(chart.dtype)
    return types.BaseTuple.from_types([_element(part) for part in chart.types], chart.instance_class)


# ----------------------------------------------------------------------------------------------------------
# Memory
# ----------------------------------------------------------------------------------------------------------


def _address(context: Any, builder: Any, array_type: types.Array, array: Any, indices: Any) -> Any:
    struct = context.make_array(array_type)(context, builder, array)
    strides = cgutils.unpack_tuple(builder, struct.strides)
    offset = ir.Constant(ir.IntType(64), 0)
    for stride, index in zip(strides, indices, strict=False):
        offset = builder.add(offset, builder.mul(stride, index))
    base = builder.bitcast(struct.data, ir.IntType(8).as_pointer())
    return builder.gep(base, [offset])


def _alignment(array_type: types.Array) -> int:
    return array_type.dtype.bitwidth // 8


def _load(context: Any, builder: Any, chart_type: types.Type, chart: Any, indices: Any) -> Any:
    if isinstance(chart_type, types.Array):
        address = _address(context, builder, chart_type, chart, indices)
        vector = Lanes(chart_type.dtype).vector
        return builder.load(builder.bitcast(address, vector.as_pointer()), align=_alignment(chart_type))
    parts = [
        _load(context, builder, part_type, builder.extract_value(chart, position), indices)
        for position, part_type in enumerate(chart_type.types)
    ]
    return context.make_tuple(builder, _element(chart_type), parts)


def _store(context: Any, builder: Any, chart_type: types.Type, chart: Any, indices: Any, value: Any) -> None:
    if isinstance(chart_type, types.Array):
        address = _address(context, builder, chart_type, chart, indices)
        address = builder.bitcast(address, value.type.as_pointer())
        builder.store(value, address, align=_alignment(chart_type))
        return
    for position, part_type in enumerate(chart_type.types):
        part = builder.extract_value(chart, position)
        _store(context, builder, part_type, part, indices, builder.extract_value(value, position))


@intrinsic
def load(typing_context, chart, i, j):
    """The cell `(i, j)` of a chart. No bounds are checked and no index counts from the end."""

    def generate(context, builder, signature, arguments):
        chart_value, *indices = arguments
        return _load(context, builder, signature.args[0], chart_value, indices)

    return _element(chart)(chart, types.int64, types.int64), generate


@intrinsic
def store(typing_context, chart, i, j, value):
    """Write the cell `(i, j)` of a chart."""

    def generate(context, builder, signature, arguments):
        chart_value, row, column, number = arguments
        _store(context, builder, signature.args[0], chart_value, [row, column], number)
        return context.get_dummy_value()

    return types.none(chart, types.int64, types.int64, _element(chart)), generate


# ----------------------------------------------------------------------------------------------------------
# Plain lanes
# ----------------------------------------------------------------------------------------------------------


def _instruction(arity: int, generate: Callable[..., Any]) -> Callable[..., Any]:
    """An intrinsic on `arity` lanes of one type, which it returns: `generate(builder, type, *values)`."""

    def typed(*arguments):
        lanes = arguments[0]
        if not all(isinstance(argument, Lanes) and argument == lanes for argument in arguments):
            return None

        def code(context, builder, signature, values):
            return generate(builder, lanes, *values)

        return lanes(*arguments), code

    # numba reads the number of arguments off the function.
    by_arity = {
        1: lambda typing_context, a: typed(a),
        2: lambda typing_context, a, b: typed(a, b),
        4: lambda typing_context, a, b, c, d: typed(a, b, c, d),
    }
    return intrinsic(by_arity[arity])


def _overload_operator(symbol: Callable, instruction: Callable) -> None:
    @overload(symbol)
    def operation(a, b):
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return lambda a, b: instruction(a, b)


# "contract": a product and a sum may become one fused instruction; nothing is re-associated.
for _symbol, _opcode in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload_operator(
        _symbol,
        _instruction(
            2,
            lambda builder, lanes, a, b, opcode=_opcode: getattr(builder, opcode)(a, b, flags=("contract",)),
        ),
    )

# a > b ? x : y, lane by lane; false where a or b is NaN. `a > b ? a : b` becomes one max instruction.
where_greater = _instruction(
    4, lambda builder, lanes, a, b, x, y: builder.select(builder.fcmp_ordered(">", a, b), x, y)
)


def _two_to(builder: Any, lanes: Lanes, exponent: Any) -> Any:
    # Adding 1.5 * 2 ** mantissa_bits puts an integer into the lowest bits of the mantissa.
    magic = lanes.constant(1.5 * 2**lanes.mantissa_bits + lanes.bias)
    bits = builder.bitcast(builder.fadd(exponent, magic), lanes.integers)
    return builder.bitcast(builder.shl(bits, lanes.integer(lanes.mantissa_bits)), lanes.vector)


# 2 ** a for integers of the range of normal numbers.
two_to = _instruction(1, _two_to)


def _exponent_of(builder: Any, lanes: Lanes, value: Any) -> Any:
    field = builder.lshr(builder.bitcast(value, lanes.integers), lanes.integer(lanes.mantissa_bits))
    field = builder.and_(field, lanes.integer(2 * lanes.bias + 1))
    return builder.fsub(builder.sitofp(field, lanes.vector), lanes.constant(lanes.bias))


# floor(log2(|a|)) of normal numbers.
exponent_of = _instruction(1, _exponent_of)


def _round(builder: Any, lanes: Lanes, value: Any) -> Any:
    suffix = f"v{lanes.width}f{lanes.dtype.bitwidth}"
    function_type = ir.FunctionType(lanes.vector, [lanes.vector])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.rint.{suffix}")
    return builder.call(function, [value])


# The nearest integer.
nearest = _instruction(1, _round)


@intrinsic
def splat(typing_context, chart, number):
    """The same number in all lanes of the plain type that `chart` is made of."""
    lanes = chart
    while not isinstance(lanes, (types.Array, Lanes)):
        lanes = lanes.types[0]
    lanes = Lanes(lanes.dtype)

    def generate(context, builder, signature, arguments):
        number = context.cast(builder, arguments[1], signature.args[1], lanes.dtype)
        vector = builder.insert_element(ir.Constant(lanes.vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.width), [0] * lanes.width)
        return builder.shuffle_vector(vector, vector, zeros)

    return lanes(chart, number), generate


@intrinsic
def store_index(typing_context, chart, i, j, index):
    """Write lanes that hold small integers into an int16 chart."""

    def generate(context, builder, signature, arguments):
        chart_value, row, column, vector = arguments
        chart_type, lanes = signature.args[0], signature.args[3]
        integers = ir.VectorType(ir.IntType(16), lanes.width)
        address = _address(context, builder, chart_type, chart_value, [row, column])
        builder.store(builder.fptosi(vector, integers), builder.bitcast(address, integers.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.none(chart, types.int64, types.int64, index), generate


# ----------------------------------------------------------------------------------------------------------
# Numbers of every kind
# ----------------------------------------------------------------------------------------------------------
# The bodies below are only ever compiled: numba picks the one for the kind of its first argument.


def _power(exponent):
    """2 ** exponent in float64 for any integer: where that is not a normal number, the nearest one that is."""


@overload(_power)
def _power_of_lanes(exponent):
    def power(exponent):
        lowest = splat(exponent, -1022.0)
        highest = splat(exponent, 1023.0)
        exponent = where_greater(exponent, lowest, exponent, lowest)
        return two_to(where_greater(highest, exponent, exponent, highest))

    return power


def normalise(number):
    """An `Extended` with its mantissa in [1, 2) or exactly 0; any other number as it is."""


@overload(normalise)
def _normalise(number):
    if _is(number, Extended):

        def normalised(number):
            zero = splat(number, 0.0)
            shift = exponent_of(number.mantissa)
            normal = splat(number, -1022.5)
            mantissa = number.mantissa * two_to(zero - shift)
            return Extended(
                where_greater(shift, normal, mantissa, zero),
                where_greater(shift, normal, number.exponent + shift, splat(number, _ZERO_EXPONENT)),
            )

        return normalised
    if _is(number, Dual):
        return lambda number: Dual(normalise(number.value), normalise(number.tangent))
    return lambda number: number


def add(a, b):
    pass


@overload(add)
def _add(a, b):
    if _is(a, Extended):

        def extended(a, b):
            top = where_greater(a.exponent, b.exponent, a.exponent, b.exponent)
            return Extended(a.mantissa * _power(a.exponent - top) + b.mantissa * _power(b.exponent - top), top)

        return extended
    if _is(a, Dual):
        return lambda a, b: Dual(add(a.value, b.value), add(a.tangent, b.tangent))
    return lambda a, b: a + b


def multiply(a, b):
    pass


@overload(multiply)
def _multiply(a, b):
    if _is(a, Extended):
        return lambda a, b: Extended(a.mantissa * b.mantissa, a.exponent + b.exponent)
    if _is(a, Dual):
        return lambda a, b: Dual(
            multiply(a.value, b.value), multiply_add(multiply(a.value, b.tangent), a.tangent, b.value)
        )
    return lambda a, b: a * b


def multiply_add(total, a, b):
    """total + a * b"""


@overload(multiply_add)
def _multiply_add(total, a, b):
    if _is(total, Dual):
        return lambda total, a, b: Dual(
            multiply_add(total.value, a.value, b.value),
            multiply_add(multiply_add(total.tangent, a.value, b.tangent), a.tangent, b.value),
        )
    return lambda total, a, b: add(total, multiply(a, b))


def reciprocal(number):
    pass


@overload(reciprocal)
def _reciprocal(number):
    if _is(number, Extended):
        return lambda number: normalise(
            Extended(splat(number, 1.0) / number.mantissa, splat(number, 0.0) - number.exponent)
        )
    if _is(number, Dual):

        def dual(number):
            inverse = reciprocal(number.value)
            minus = constant(number.value, -1.0)
            # In this order: the square of the inverse may overflow.
            relative = multiply(number.tangent, inverse)
            return Dual(inverse, multiply(minus, multiply(relative, inverse)))

        return dual
    return lambda number: splat(number, 1.0) / number


def number_like(kind, lanes):
    """Plain lanes as a number of the same kind as `kind` (a chart or a number), with tangent 0."""


@overload(number_like)
def _number_like(kind, lanes):
    if _is(kind, Extended):
        return lambda kind, lanes: normalise(Extended(lanes, splat(kind, 0.0)))
    if _is(kind, Dual):
        return lambda kind, lanes: Dual(number_like(kind.value, lanes), number_like(kind.value, splat(kind, 0.0)))
    return lambda kind, lanes: lanes


def constant(kind, value):
    pass


@overload(constant)
def _constant(kind, value):
    return lambda kind, value: number_like(kind, splat(kind, value))


def _exponential(lanes):
    """exp(lanes), lanes <= 0, as an `Extended` for any number of bits."""


@overload(_exponential)
def _exponential_of_lanes(lanes):
    # Taylor's series on [-log(2) / 2, log(2) / 2], where this many terms reach the rounding error.
    terms = 7 if lanes.dtype == types.float32 else 13
    coefficients = tuple(1 / math.factorial(k) for k in range(terms, -1, -1))
    # log(2) in two parts, the first with so few bits that its product with the exponent is exact.
    high = 0.693145751953125
    low = 1.428606820309417232e-06
    inverse = 1 / math.log(2)

    def exponential(lanes):
        exponent = nearest(lanes * splat(lanes, inverse))
        rest = lanes - exponent * splat(lanes, high) - exponent * splat(lanes, low)
        # Only for exponents beyond all precision: there the rest of the reduction is noise.
        edge = splat(lanes, 0.35)
        rest = where_greater(rest, edge, edge, rest)
        edge = splat(lanes, -0.35)
        rest = where_greater(edge, rest, edge, rest)
        mantissa = splat(lanes, coefficients[0])
        for k in range(1, terms + 1):
            mantissa = splat(lanes, coefficients[k]) + mantissa * rest
        return Extended(mantissa, exponent)

    return exponential


def exponential_like(kind, lanes, direction):
    """exp(lanes), lanes <= 0, as a number of the same kind as `kind`; `direction` is the tangent of its log."""


@overload(exponential_like)
def _exponential_like(kind, lanes, direction):
    if _is(kind, Extended):
        return lambda kind, lanes, direction: normalise(_exponential(lanes))
    if _is(kind, Dual):

        def dual(kind, lanes, direction):
            value = exponential_like(kind.value, lanes, direction)
            return Dual(value, normalise(multiply(value, number_like(kind.value, direction))))

        return dual
    lowest = -87.0 if kind.dtype == types.float32 else -708.0

    def plain(kind, lanes, direction):
        # The comparisons are this way round for NaN to stay NaN.
        edge = splat(lanes, lowest)
        number = _exponential(where_greater(edge, lanes, edge, lanes))
        return where_greater(edge, lanes, splat(lanes, 0.0), number.mantissa * two_to(number.exponent))

    return plain


def plain(number):
    """Plain lanes of a number: the value or, of a `Dual`, the tangent."""


@overload(plain)
def _plain(number):
    if _is(number, Extended):

        def extended(number):
            exact = normalise(number)
            value = exact.mantissa * _power(exact.exponent)
            return where_greater(exact.exponent, splat(number, -1022.5), value, splat(number, 0.0))

        return extended
    if _is(number, Dual):
        return lambda number: plain(number.tangent)
    return lambda number: number


def mantissa_and_exponent(number):
    """Plain lanes `(m, e)` with `m * 2 ** e` the value of a number."""


@overload(mantissa_and_exponent)
def _mantissa_and_exponent(number):
    if _is(number, Extended):
        return lambda number: (number.mantissa, number.exponent)
    if _is(number, Dual):
        return lambda number: mantissa_and_exponent(number.value)
    return lambda number: (number, splat(number, 0.0))


def mark_beyond(mark, number, limit):
    """`mark` (plain lanes), but 1 where a number that may overflow is not below `limit`."""


@overload(mark_beyond)
def _mark_beyond(mark, number, limit):
    if _is(number, Extended):
        return lambda mark, number, limit: mark
    if _is(number, Dual):
        return lambda mark, number, limit: mark_beyond(mark, number.value, limit)
    return lambda mark, number, limit: where_greater(splat(number, limit), number, mark, splat(number, 1.0))


@lane_kernel
def exponentiate(row):
    """
    exp of every number of `row`, `(1, n)` with n a multiple of the lanes, in place; those numbers are between -700
    and 700.
    """
    width = BYTES // row.itemsize
    for i in range(0, row.shape[1], width):
        lanes = load(row, 0, i)
        store(row, 0, i, exponential_like(row, lanes, lanes))
