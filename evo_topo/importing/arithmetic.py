"""Sums, products and joins, as torch calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evo_topo.importing.arguments import Call, number_of
from evo_topo.importing.lowering import Lowering, NotExpressible
from evo_topo.importing.values import Value
from evo_topo.ops import Add, Concat, Multiply, Scale


def _add(net: Lowering, input: Any, other: Any, alpha: Any = 1) -> Value:
    other = other if alpha == 1 else _mul(net, other, alpha)
    for one, number in ((input, number_of(other)), (other, number_of(input))):
        if number is not None:
            return net.elementwise(Scale(1.0, number), one)
    return net.tie(Add(), (input, other))


def _sub(net: Lowering, input: Any, other: Any, alpha: Any = 1) -> Value:
    number = number_of(other)
    if number is not None:
        return net.elementwise(Scale(1.0, -number * float(alpha)), input)
    return _add(net, _mul(net, other, -float(alpha)), input)


def _mul(net: Lowering, input: Any, other: Any) -> Value:
    for one, number in ((input, number_of(other)), (other, number_of(input))):
        if number is not None:
            return one if number == 1 else net.elementwise(Scale(number), one)
    return net.tie(Multiply(), (input, other))


def _div(net: Lowering, input: Any, other: Any) -> Value:
    number = number_of(other)
    if not number:
        raise NotExpressible("it divides by an activation or by zero")
    return net.elementwise(Scale(1 / number), input)


def _neg(net: Lowering, input: Any) -> Value:
    return net.elementwise(Scale(-1.0), input)


def _square(net: Lowering, input: Any) -> Value:
    return net.tie(Multiply(), (input, input))


def _cat(net: Lowering, tensors: Sequence[Value], dim: int = 0) -> Value:
    if not all(isinstance(tensor, Value) for tensor in tensors):
        raise NotExpressible("it joins stored tensors with activations")
    rank = 1 + len(tensors[0].size)
    if dim % rank != 1:
        raise NotExpressible(f"it joins along dimension {dim}; only channels, dimension 1, can be joined")
    return tensors[0] if len(tensors) == 1 else net.apply(Concat(), *tensors)


def _convert(net: Lowering, input: Value, *args: Any, **kwargs: Any) -> Value:
    return input  # `lower_call` has made sure that the type stays


ARITHMETIC_CALLS: dict[str, Call] = {
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "mul": _mul,
    "multiply": _mul,
    "truediv": _div,
    "div": _div,
    "divide": _div,
    "true_divide": _div,
    "neg": _neg,
    "negative": _neg,
    "square": _square,
    "cat": _cat,
    "concat": _cat,
    "concatenate": _cat,
    "to": _convert,
    "float": _convert,
    "type_as": _convert,
}
