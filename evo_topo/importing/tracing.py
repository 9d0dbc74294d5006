"""Recording what a torch module computes, call by call, with the shape of every value.

`torch.fx` records calls; here every recorded value also carries a tensor without data (torch's meta
device), so that code that asks for shapes, lengths or numbers of extents gets plain numbers and may branch
on them. Modules are followed down to the functions of torch that they call, which leaves few kinds of
calls to understand.
"""

from __future__ import annotations

import linecache
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Proxy, Tracer
from torch.fx import Node as FxNode
from torch.fx.node import map_arg
from torch.fx.proxy import TraceError

from evo_topo.ops import Shape

BATCH = 3
"""Examples in the recorded batch: a number that no layer is likely to mean."""
_TORCH = str(Path(torch.__file__).parent) + "/"


class UnsupportedModuleError(ValueError):
    """A module computes what no genome expresses; the message names module, call and source line."""


class _ShapedProxy(Proxy):
    """A recorded value that knows its shape, type and length."""

    def __getattr__(self, name: str) -> Any:
        value = self.node.meta["value"]
        if isinstance(value, Tensor) and not name.startswith("__"):
            found = getattr(value, name, None)
            if not callable(found) and not isinstance(found, Tensor):
                return found
        return super().__getattr__(name)

    def __len__(self) -> int:
        return len(self.node.meta["value"])

    # torch.fx records `x += y` as `x = x + y`, which would hide that x is written over.
    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _ShapeTracer(Tracer):
    """Records the calls of a module, each with its value on the meta device.

    Args:
        net: The module.
        input_shape: Shape of one example.
        dtype: Type of the inputs.
    """

    def __init__(self, net: nn.Module, input_shape: Shape, dtype: torch.dtype) -> None:
        super().__init__()
        # attributes of modules are recorded while tracing, so stored tensors are looked up beforehand
        self.stored: dict[str, Tensor] = {
            **dict(net.named_parameters(remove_duplicate=False)),
            **dict(net.named_buffers(remove_duplicate=False)),
        }
        self.proxy_buffer_attributes = True
        self.inputs = torch.empty(BATCH, *input_shape, dtype=dtype, device="meta")

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """No module is a leaf."""
        return False

    def create_node(self, *args: Any, **kwargs: Any) -> FxNode:
        """Records a call, the module that makes it, and its source line."""
        node = super().create_node(*args, **kwargs)
        node.meta["module"] = self.scope.module_path
        node.meta["line"] = _source_line(_callers(sys._getframe()))
        return node

    def create_arg(self, a: Any) -> Any:
        """What a call may be given; a tensor made on the way must be a single number."""
        if isinstance(a, Tensor) and a not in self.tensor_attrs and not isinstance(a, nn.Parameter):
            if a.numel() == 1 and a.device.type != "meta":
                return a.item()
            raise TraceError(f"a constant tensor of shape {tuple(a.shape)} is no single number")
        return super().create_arg(a)

    def proxy(self, node: FxNode) -> Any:
        """The recorded value; a plain number or shape is given back as what it is."""
        value = node.meta["value"] = self._run(node)
        if _holds_tensor(value):
            return _ShapedProxy(node, self)
        self.graph.erase_node(node)
        return value

    def _run(self, node: FxNode) -> Any:
        """What a call gives, on the meta device."""
        if node.op == "placeholder":  # further arguments of the module keep their defaults
            return node.args[0] if node.args else self.inputs
        if node.op == "get_attr":
            return self.stored[str(node.target)].detach().to("meta")
        return run_call(node, *map_arg((node.args, node.kwargs), lambda n: n.meta["value"]))

    def iter(self, obj: Proxy) -> Iterator[Any]:
        """The parts of a recorded value, one by one."""
        parts: Any = obj
        return iter([parts[i] for i in range(len(obj.node.meta["value"]))])


def run_call(node: FxNode, args: Any, kwargs: Any) -> Any:
    """Carries a recorded call out on the given arguments."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)


def record(net: nn.Module, input_shape: Shape, dtype: torch.dtype) -> Graph:
    """Records what a module computes in evaluation mode.

    Args:
        net: The module, in evaluation mode.
        input_shape: Shape of one example.
        dtype: Type of the inputs.

    Returns:
        The calls. The meta data of each hold its ``value``, the path of the ``module`` that makes it and
        the source ``line``.

    Raises:
        UnsupportedModuleError: When its code branches on values, or fails on inputs of this shape.
    """
    tracer = _ShapeTracer(net, input_shape, dtype)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the module warns of, it warns of when it runs
            return tracer.trace(net)
    except Exception as error:  # whatever the module's code may raise
        line = _source_line(reversed(list(walk_tb(error.__traceback__))))
        path, _ = next(reversed(tracer.module_stack.values()), ("", None))
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise UnsupportedModuleError(
            f"{_describe_place(net, path)} cannot be recorded with inputs of shape {tuple(input_shape)}: "
            f"{reason} ({type(error).__name__}; {line})"
        ) from error


def describe_call(net: nn.Module, node: FxNode) -> str:
    """Module, call and source line of a recorded call."""
    name = getattr(node.target, "__name__", str(node.target))
    return f"{_describe_place(net, node.meta['module'])}, call {name} ({node.meta['line']})"


def _describe_place(net: nn.Module, path: str) -> str:
    return f"module {path or 'as a whole'} ({type(net.get_submodule(path)).__name__})"


def _callers(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _source_line(frames: Iterable[tuple[FrameType, int]]) -> str:
    """The innermost source line of the recorded code, rather not torch's own; frames innermost first."""
    fallback = None
    for frame, number in frames:
        name = frame.f_code.co_filename
        if frame.f_code is record.__code__:
            break
        line = f"{name}:{number}: {linecache.getline(name, number).strip()}"
        if not name.startswith((_TORCH, __file__)):
            return line
        if fallback is None and name.startswith(f"{_TORCH}nn/modules") and frame.f_code.co_name == "forward":
            fallback = line
    return fallback or "no source line"
