"""Which calls of torch a genome can express, and how each becomes nodes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node as FxNode
from torch.fx.node import map_aggregate

from evo_topo.importing.activations import ACTIVATION_CALLS
from evo_topo.importing.arithmetic import ARITHMETIC_CALLS
from evo_topo.importing.layers import LAYER_CALLS
from evo_topo.importing.lowering import Lowering, NotExpressible
from evo_topo.importing.pooling import POOLING_CALLS
from evo_topo.importing.tracing import run_call
from evo_topo.importing.values import Stored, Value

CALLS = ACTIVATION_CALLS | ARITHMETIC_CALLS | LAYER_CALLS | POOLING_CALLS
"""By name in torch: the counterpart of a call, given its arguments."""
MOVES = frozenset(
    {
        *(
            "view",
            "view_as",
            "reshape",
            "reshape_as",
            "flatten",
            "unflatten",
            "squeeze",
            "unsqueeze",
            "contiguous",
        ),
        *(
            "transpose",
            "permute",
            "swapaxes",
            "swapdims",
            "movedim",
            "moveaxis",
            "flip",
            "roll",
            "clone",
            "detach",
        ),
        *("chunk", "split", "tensor_split", "unbind", "getitem", "narrow", "select", "expand", "expand_as"),
        *("pixel_unshuffle", "pixel_shuffle", "channel_shuffle"),
    }
)
"""Calls that only move elements: carried out on element numbers."""
_IN_PLACE = {
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "itruediv": "truediv",
    **{f"{name}_": name for name in CALLS if not name.endswith("_")},
}


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


def _reads(args: Any, kwargs: Any, kind: type) -> bool:
    found = []
    map_aggregate((args, kwargs), lambda item: found.append(isinstance(item, kind)))
    return any(found)


def _compute(node: FxNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stored:
    """A constant computed from stored tensors alone."""
    found: list[Stored] = []
    map_aggregate((args, kwargs), lambda item: found.append(item) if isinstance(item, Stored) else None)
    plain = map_aggregate((args, kwargs), lambda item: item.tensor if isinstance(item, Stored) else item)
    result = run_call(node, *plain)
    if not isinstance(result, Tensor):
        raise NotExpressible("it computes several constants at once")
    return Stored(None, result, any(stored.is_parameter for stored in found))


def _move(node: FxNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carries a call out on element numbers."""
    first, *rest = args or [next(iter(kwargs.values()))]
    if isinstance(first, tuple | list):  # one of several results
        return first[rest[0]]
    if not isinstance(first, Value) or _reads(rest, kwargs, Stored):
        raise NotExpressible("it is moved by stored numbers")
    numbers = map_aggregate((args, kwargs), lambda item: item.numbers() if isinstance(item, Value) else item)
    moved = run_call(node, *numbers)
    if isinstance(moved, Tensor):
        return Value(first.name, first.shape, moved)
    return tuple([Value(first.name, first.shape, part) for part in moved])
