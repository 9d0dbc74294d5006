"""The calls of torch that a genome can express, by name, with the arguments that torch gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from torch import Tensor
from torch.fx import Node as FxNode
from torch.fx.node import map_aggregate

from evo_topo.importing.lowering import Lowering, NotExpressible
from evo_topo.importing.values import Stored, Value, viewed
from evo_topo.ops import (
    Activation,
    ActivationFunction,
    AdaptivePool,
    Add,
    Concat,
    Conv,
    Dropout,
    GlobalPool,
    Linear,
    Multiply,
    Norm,
    Pad,
    Pool,
    Scale,
    Shape,
)

Call = Callable[..., Any]
CALLS: dict[str, Call] = {}
MOVES = frozenset(
    "view view_as reshape reshape_as flatten unflatten squeeze unsqueeze transpose permute swapaxes swapdims movedim "
    "moveaxis chunk split tensor_split unbind getitem narrow select index_select flip roll expand expand_as "
    "pixel_unshuffle pixel_shuffle channel_shuffle contiguous clone detach".split()
)
"""Calls that only move elements: carried out on element numbers."""


def lower_call(net: Lowering, node: FxNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Adds the nodes of one recorded call.

    Returns:
        Its value; a tuple where it gives several.

    Raises:
        NotExpressible: When no genome expresses it.
    """
    name = getattr(node.target, "__name__", str(node.target))
    in_place = bool(kwargs.pop("inplace", False)) or name in _IN_PLACE
    name = _IN_PLACE.get(name, name)
    if node.op == "call_function" and not _is_torchs(node.target):
        raise NotExpressible("it is no function of torch")
    if not _reads(args, kwargs, Value):
        return _compute(node, args, kwargs)
    if name in MOVES:
        return _move(node, args, kwargs)
    if name not in CALLS:
        raise NotExpressible("the operation vocabulary does not have it")
    try:
        result = CALLS[name](net, *args, **kwargs)
    except TypeError as error:
        raise NotExpressible(f"its arguments are not understood: {error}") from None
    if in_place and isinstance(result, Value):
        net.overwrite(args[0], result, node)
    expected = node.meta["value"]
    if isinstance(expected, Tensor) and expected.dtype != net.dtype:
        raise NotExpressible(f"it gives type {expected.dtype} in a network of type {net.dtype}")
    if isinstance(expected, Tensor) and tuple(expected.shape[1:]) != result.size:
        raise NotExpressible(f"it gives shape {tuple(expected.shape[1:])}, its counterpart {result.size}")
    return result


def _is_torchs(function: Any) -> bool:
    room = (getattr(function, "__module__", None) or "torch").split(".")[0]
    return room in ("torch", "torchvision", "_operator", "builtins")


def call(*names: str) -> Callable[[Call], Call]:
    """Registers the counterpart of calls with these names."""

    def register(function: Call) -> Call:
        CALLS.update(dict.fromkeys(names, function))
        return function

    return register


def _reads(args: Any, kwargs: Any, kind: type) -> bool:
    found = []
    map_aggregate((args, kwargs), lambda item: found.append(isinstance(item, kind)))
    return any(found)


def _compute(node: FxNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stored:
    """A constant computed from stored tensors alone."""
    found: list[Stored] = []
    map_aggregate((args, kwargs), lambda item: found.append(item) if isinstance(item, Stored) else None)
    plain = map_aggregate((args, kwargs), lambda item: item.tensor if isinstance(item, Stored) else item)
    (first, *rest), named = plain
    is_method = node.op == "call_method"
    result = getattr(first, node.target)(*rest, **named) if is_method else node.target(first, *rest, **named)
    if not isinstance(result, Tensor):
        raise NotExpressible("it computes several constants at once")
    return Stored(None, result, any(stored.is_parameter for stored in found))


def _move(node: FxNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carries a call out on element numbers."""
    first, *rest = args
    if isinstance(first, tuple | list):  # one of several results
        return first[rest[0]]
    if not isinstance(first, Value) or _reads(rest, kwargs, Stored):
        raise NotExpressible("it is moved by stored numbers")
    rest, kwargs = map_aggregate(
        (rest, kwargs), lambda item: item.numbers() if isinstance(item, Value) else item
    )
    numbers = first.numbers()
    is_method = node.op == "call_method"
    moved = (
        getattr(numbers, node.target)(*rest, **kwargs) if is_method else node.target(numbers, *rest, **kwargs)
    )
    if isinstance(moved, Tensor):
        return Value(first.name, first.shape, moved)
    return tuple([Value(first.name, first.shape, part) for part in moved])


def _number(value: Any) -> float | None:
    """A plain number, or a stored one that is not trained."""
    if isinstance(value, Stored) and value.tensor.numel() == 1 and not value.is_parameter:
        return float(value.tensor)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _each(value: Any, dims: int) -> Shape:
    """A window setting for each extent, from one for all or one for each."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple([int(v) for v in values]) if len(values) == dims else (int(values[0]),) * dims


# Layers with weights


@call("conv1d", "conv2d")
def _conv(
    net: Lowering,
    input: Any,  # noqa: A002 - torch's names, also below
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    kernel = tuple(weight.tensor.shape[2:])
    dims = len(kernel)
    stride, dilation = _each(stride, dims), _each(dilation, dims)
    if isinstance(padding, str):  # "same" puts the odd one behind
        total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple([t // 2 for t in total])
        if any(t % 2 for t in total):
            input = net.apply(Pad((0,) * dims, tuple([t % 2 for t in total])), input)  # noqa: A001
    op = Conv(
        weight.tensor.shape[0], kernel, stride, _each(padding, dims), dilation, groups, bias is not None
    )
    return _with_weights(net, net.apply(op, input), weight=weight, bias=bias)


@call("linear")
def _linear(net: Lowering, input: Any, weight: Any, bias: Any = None) -> Value:  # noqa: A002
    if isinstance(input, Value) and len(input.size) != 1:
        raise NotExpressible(f"a linear layer over shape {input.size} per example; expected (features,)")
    made = net.apply(Linear(weight.tensor.shape[0], bias is not None), input)
    return _with_weights(net, made, weight=weight, bias=bias)


@call("batch_norm")
def _batch_norm(
    net: Lowering,
    input: Any,  # noqa: A002
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    if training or running_mean is None or running_var is None:
        raise NotExpressible("it normalises by the statistics of the batch in evaluation mode, too")
    if weight is None or bias is None:
        raise NotExpressible("a BatchNorm without learned scale and shift")
    made = net.apply(Norm(eps), input)
    return _with_weights(
        net, made, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var
    )


def _with_weights(net: Lowering, made: Value, **entries: Any) -> Value:
    for entry, stored in entries.items():
        if stored is not None:
            net.own(made.name, entry, stored)
    return made


# Activations


def _activation(name: ActivationFunction) -> Call:
    def activate(net: Lowering, input: Any) -> Value:  # noqa: A002
        return net.elementwise(Activation(name), input)

    return activate


CALLS.update(
    {
        name: _activation(name)
        for name in get_args(ActivationFunction)
        if name not in ("leaky_relu", "elu", "gelu")
    }
)


@call("leaky_relu")
def _leaky_relu(net: Lowering, input: Any, negative_slope: float = 0.01) -> Value:  # noqa: A002
    return net.elementwise(Activation("leaky_relu", negative_slope), input)


@call("elu")
def _elu(net: Lowering, input: Any, alpha: float = 1.0) -> Value:  # noqa: A002
    return net.elementwise(Activation("elu", alpha), input)


@call("gelu")
def _gelu(net: Lowering, input: Any, approximate: str = "none") -> Value:  # noqa: A002
    if approximate != "none":
        raise NotExpressible(f"a GELU approximated by {approximate!r}; only the exact one is known")
    return net.elementwise(Activation("gelu"), input)


@call("hardtanh", "clamp", "clip", "clamp_min")
def _clamp(net: Lowering, input: Any, min_val: Any = None, max_val: Any = None, **names: Any) -> Value:  # noqa: A002
    low, high = names.pop("min", min_val), names.pop("max", max_val)
    if low != 0 or high not in (None, 6) or names:
        raise NotExpressible(f"clamps from {low} to {high}; only ReLU and ReLU6 are known")
    return net.elementwise(Activation("relu" if high is None else "relu6"), input)


@call("dropout")
def _dropout(net: Lowering, input: Any, p: float = 0.5, training: bool = False) -> Value:  # noqa: A002
    if training:
        raise NotExpressible("it drops elements in evaluation mode, too")
    return input if p == 0 else net.elementwise(Dropout(p), input)


@call("dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth")
def _regularise(
    net: Lowering,
    input: Any,  # noqa: A002
    p: float = 0.5,
    mode: Any = None,
    training: bool = False,
) -> Value:
    if training is True or mode is True:
        raise NotExpressible("it drops elements in evaluation mode, too")
    return input


# Pooling and padding


def _pool(
    net: Lowering, mode: Literal["max", "avg"], input: Any, kernel: Any, stride: Any, **rest: Any
) -> Value:  # noqa: A002
    dims = len(input.size) - 1
    kernel = _each(kernel, dims)
    stride = kernel if stride is None or stride == [] else _each(stride, dims)
    rest["padding"] = _each(rest["padding"], dims)
    return net.apply(Pool(kernel, mode, stride, **rest), input)


@call("max_pool1d", "max_pool2d")
def _max_pool(
    net: Lowering,
    input: Any,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if return_indices or _each(dilation, 1) != (1,):
        raise NotExpressible(f"max pooling with dilation {dilation} or with indices")
    return _pool(net, "max", input, kernel_size, stride, padding=padding, ceil_mode=ceil_mode)


@call("avg_pool1d", "avg_pool2d")
def _avg_pool(
    net: Lowering,
    input: Any,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Value:
    if divisor_override is not None:
        raise NotExpressible(f"average pooling with divisor {divisor_override}")
    rest = {"padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    return _pool(net, "avg", input, kernel_size, stride, **rest)


def _adaptive_pool(net: Lowering, mode: Literal["max", "avg"], input: Any, output_size: Any) -> Value:  # noqa: A002
    extents = input.size[1:]
    sizes = output_size if isinstance(output_size, Sequence) else (output_size,) * len(extents)
    size = tuple([n if s is None else int(s) for s, n in zip(sizes, extents, strict=True)])
    if size == extents:  # every window holds one element
        return input
    if max(size) == 1:
        return net.apply(GlobalPool(mode), input)
    if any(n % s for s, n in zip(size, extents, strict=True)):
        return net.apply(AdaptivePool(size, mode), input)
    return net.apply(Pool(tuple([n // s for s, n in zip(size, extents, strict=True)]), mode), input)


@call("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(net: Lowering, input: Any, output_size: Any) -> Value:  # noqa: A002
    return _adaptive_pool(net, "avg", input, output_size)


@call("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(net: Lowering, input: Any, output_size: Any, return_indices: bool = False) -> Value:  # noqa: A002
    if return_indices:
        raise NotExpressible("pooling that returns indices")
    return _adaptive_pool(net, "max", input, output_size)


@call("mean")
def _mean(net: Lowering, input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:  # noqa: A002
    return _reduce(net, "avg", input, dim, keepdim)


@call("amax")
def _amax(net: Lowering, input: Any, dim: Any = None, keepdim: bool = False) -> Value:  # noqa: A002
    return _reduce(net, "max", input, dim, keepdim)


def _reduce(net: Lowering, mode: Literal["max", "avg"], input: Any, dim: Any, keepdim: bool) -> Value:  # noqa: A002
    """Global pooling written as a mean or maximum over all extents."""
    rank = 1 + len(input.size)
    dims = sorted({d % rank for d in (dim if isinstance(dim, Sequence) else (dim,)) if d is not None})
    if rank < 3 or dims != list(range(2, rank)):
        raise NotExpressible(
            f"a reduction of dimensions {dim} of shape (batch, {input.size}); expected all extents"
        )
    if input.is_reshaped and input.size[0] == input.shape[0]:
        input = Value(input.name, input.shape)  # noqa: A001 - the extents were only flattened
    pooled = net.apply(GlobalPool(mode), input)
    return viewed(pooled.name, pooled.shape, (pooled.shape[0], *[1] * (rank - 2 if keepdim else 0)))


@call("pad")
def _pad(net: Lowering, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Value:  # noqa: A002
    fill = _number(value) or 0.0
    if mode != "constant" or fill not in (0.0, -math.inf):
        raise NotExpressible(f"padding by {mode} {fill}; only zeros and minus infinity are known")
    pairs = list(zip(pad[::2], pad[1::2], strict=True))  # the last extent comes first
    dims = len(input.size) - 1
    if any(map(any, pairs[dims:])):
        raise NotExpressible(f"padding {tuple(pad)} adds channels or examples")
    pairs = [*pairs[:dims], *[(0, 0)] * (dims - len(pairs))][::-1]
    if not any(map(any, pairs)):
        return input
    before, after = zip(*pairs, strict=True)
    return net.apply(Pad(before, after, "lowest" if fill else "zero"), input)


# Arithmetic


@call("add", "__add__", "radd", "__radd__")
def _add(net: Lowering, input: Any, other: Any, alpha: Any = 1) -> Value:  # noqa: A002
    other = other if alpha == 1 else _mul(net, other, alpha)
    for one, number in ((input, _number(other)), (other, _number(input))):
        if number is not None:
            return net.elementwise(Scale(1.0, number), one)
    return net.tie(Add(), (input, other))


@call("sub", "rsub", "subtract")
def _sub(net: Lowering, input: Any, other: Any, alpha: Any = 1) -> Value:  # noqa: A002
    number = _number(other)
    if number is not None:
        return net.elementwise(Scale(1.0, -number * float(alpha)), input)
    return _add(net, _mul(net, other, -float(alpha)), input)


@call("mul", "multiply")
def _mul(net: Lowering, input: Any, other: Any) -> Value:  # noqa: A002
    for one, number in ((input, _number(other)), (other, _number(input))):
        if number is not None:
            return one if number == 1 else net.elementwise(Scale(number), one)
    return net.tie(Multiply(), (input, other))


@call("truediv", "div", "divide", "true_divide")
def _div(net: Lowering, input: Any, other: Any) -> Value:  # noqa: A002
    number = _number(other)
    if not number:
        raise NotExpressible("it divides by an activation or by zero")
    return net.elementwise(Scale(1 / number), input)


@call("neg", "negative")
def _neg(net: Lowering, input: Any) -> Value:  # noqa: A002
    return net.elementwise(Scale(-1.0), input)


@call("square")
def _square(net: Lowering, input: Any) -> Value:  # noqa: A002
    return net.tie(Multiply(), (input, input))


@call("cat", "concat", "concatenate")
def _cat(net: Lowering, tensors: Any, dim: int = 0) -> Value:
    if not all(isinstance(tensor, Value) for tensor in tensors):
        raise NotExpressible("it joins stored tensors with activations")
    rank = 1 + len(tensors[0].size)
    if dim % rank != 1:
        raise NotExpressible(f"it joins along dimension {dim}; only channels, dimension 1, can be joined")
    return tensors[0] if len(tensors) == 1 else net.apply(Concat(), *tensors)


@call("to", "float", "type_as")
def _convert(net: Lowering, input: Any, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
    return input  # `lower_call` has made sure that the type stays


_IN_PLACE = {
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "itruediv": "truediv",
    **{f"{name}_": name for name in CALLS if not name.endswith("_")},
}
