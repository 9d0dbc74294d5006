"""Activations and regularisers, as torch calls them."""

from __future__ import annotations

from typing import Any, get_args

from evo_topo.importing.arguments import Call
from evo_topo.importing.lowering import Lowering, NotExpressible
from evo_topo.importing.values import Value
from evo_topo.ops import Activation, ActivationFunction, Dropout


def _activation(name: ActivationFunction) -> Call:
    def activate(net: Lowering, input: Any) -> Value:
        return net.elementwise(Activation(name), input)

    return activate


def _leaky_relu(net: Lowering, input: Any, negative_slope: float = 0.01) -> Value:
    return net.elementwise(Activation("leaky_relu", negative_slope), input)


def _elu(net: Lowering, input: Any, alpha: float = 1.0) -> Value:
    return net.elementwise(Activation("elu", alpha), input)


def _gelu(net: Lowering, input: Any, approximate: str = "none") -> Value:
    if approximate != "none":
        raise NotExpressible(f"a GELU approximated by {approximate!r}; only the exact one is known")
    return net.elementwise(Activation("gelu"), input)


def _clamp(net: Lowering, input: Any, min_val: Any = None, max_val: Any = None, **names: Any) -> Value:
    low, high = names.pop("min", min_val), names.pop("max", max_val)
    if low != 0 or high not in (None, 6) or names:
        raise NotExpressible(f"clamps from {low} to {high}; only ReLU and ReLU6 are known")
    return net.elementwise(Activation("relu" if high is None else "relu6"), input)


def _dropout(net: Lowering, input: Any, p: float = 0.5, training: bool = True) -> Value:
    if training:
        raise NotExpressible("it drops elements in evaluation mode, too")
    return input if p == 0 else net.elementwise(Dropout(p), input)


def _drop_channels(net: Lowering, input: Value, p: float = 0.5, training: bool = True) -> Value:
    if training:
        raise NotExpressible("it drops elements in evaluation mode, too")
    return input


def _stochastic_depth(net: Lowering, input: Any, p: float, mode: str, training: bool = True) -> Value:
    return _drop_channels(net, input, p, training)


ACTIVATION_CALLS: dict[str, Call] = {
    **{name: _activation(name) for name in get_args(ActivationFunction)},
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
    "dropout": _dropout,
    "dropout1d": _drop_channels,
    "dropout2d": _drop_channels,
    "alpha_dropout": _drop_channels,
    "feature_alpha_dropout": _drop_channels,
    "stochastic_depth": _stochastic_depth,
}
