"""Layers with weights, as torch calls them."""

from __future__ import annotations

from typing import Any

from evo_topo.importing.arguments import Call, for_each
from evo_topo.importing.lowering import Lowering, NotExpressible
from evo_topo.importing.values import Value
from evo_topo.ops import Conv, Linear, Norm, Pad


def _conv(
    net: Lowering,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    kernel = tuple(weight.tensor.shape[2:])
    dims, read = len(kernel), input
    stride, dilation = for_each(stride, dims), for_each(dilation, dims)
    if isinstance(padding, str):  # "same" puts the odd one behind
        total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple([t // 2 for t in total])
        if any(t % 2 for t in total):
            read = net.apply(Pad((0,) * dims, tuple([t % 2 for t in total])), input)
    op = Conv(
        weight.tensor.shape[0], kernel, stride, for_each(padding, dims), dilation, groups, bias is not None
    )
    return _with_weights(net, net.apply(op, read), weight=weight, bias=bias)


def _linear(net: Lowering, input: Any, weight: Any, bias: Any = None) -> Value:
    if isinstance(input, Value) and len(input.size) != 1:
        raise NotExpressible(f"a linear layer over shape {input.size} per example; expected (features,)")
    made = net.apply(Linear(weight.tensor.shape[0], bias is not None), input)
    return _with_weights(net, made, weight=weight, bias=bias)


def _batch_norm(
    net: Lowering,
    input: Any,
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


LAYER_CALLS: dict[str, Call] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
}
