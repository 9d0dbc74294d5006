"""From recorded calls to genome nodes, and which stored tensor each parameter of a node is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.fx import Node as FxNode
from torch.fx.node import map_aggregate

from evo_topo.genome import Genome, GenomeError, Node
from evo_topo.importing.tracing import UnsupportedModuleError, describe_call
from evo_topo.importing.values import Stored, Value, find_ops, viewed, without_expansion
from evo_topo.ops import AnyOp, Dropout, Input, OpError, Output, Shape

LowerCall = Callable[["Lowering", FxNode, tuple[Any, ...], dict[str, Any]], Any]


class NotExpressible(Exception):
    """A call that no genome expresses; says why."""


class Lowering:
    """A genome in the making, fed call by call.

    Args:
        net: The module that was recorded.
        lower_call: Adds the nodes of one call, given its arguments, and returns its value.
        dtype: Type of all activations.

    Attributes:
        state: For each entry of the phenotype's state, the stored tensor that it is.
    """

    def __init__(self, net: nn.Module, lower_call: LowerCall, dtype: torch.dtype) -> None:
        self.net = net
        self.dtype = dtype
        self.lower_call = lower_call
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.state: dict[str, Tensor] = {}
        self.values: dict[FxNode, Any] = {}
        self._memory: dict[str, str] = {}  # node whose output a node's output may share memory with
        self._made: dict[tuple[str, tuple[int, ...], bytes], str] = {}  # views that are nodes already
        self._used: dict[str, str] = {}  # for each parameter, the node that it belongs to

    def lower(self, graph: Graph) -> Genome:
        """Turns all calls into nodes.

        Raises:
            UnsupportedModuleError: When a call has no counterpart in the vocabulary.
        """
        for node in graph.nodes:
            try:
                self.values[node] = self._lower(node)
            except (NotExpressible, OpError) as error:
                raise UnsupportedModuleError(f"{describe_call(self.net, node)}: {error}") from None
        try:
            return Genome(self._live_nodes())
        except GenomeError as error:
            raise UnsupportedModuleError(f"the network makes no valid genome: {error}") from None

    def _lower(self, node: FxNode) -> Any:
        if node.op == "placeholder":
            if self.nodes:
                raise NotExpressible("the network takes more than one input")
            return self.add(Input(tuple(node.meta["value"].shape[1:])))
        if node.op == "get_attr":
            return self._stored(str(node.target))
        args, kwargs = map_aggregate((node.args, node.kwargs), self._value_of)
        if node.op == "output":
            return self._finish(args[0])
        return self.lower_call(self, node, tuple(args), dict(kwargs))

    def _value_of(self, item: Any) -> Any:
        return self.values[item] if isinstance(item, FxNode) else item

    def _stored(self, path: str) -> Stored:
        found: Any = self.net
        for name in path.split("."):
            found = getattr(found, name)
        return Stored(path, found.detach(), isinstance(found, nn.Parameter))

    def _finish(self, result: Any) -> None:
        if not isinstance(result, Value):
            raise NotExpressible(
                f"the network returns a {type(result).__name__}; expected a tensor of logits"
            )
        if len(result.size) != 1:
            raise NotExpressible(f"the network returns {result.size} per example; expected logits (classes,)")
        self.add(Output(), self.node_of(result))

    def add(self, op: AnyOp, *reads: str) -> Value:
        """Adds a node; returns its output."""
        name = f"{type(op).__name__.lower()}{len(self.nodes)}"
        shape = op.infer(tuple([self.shapes[read] for read in reads]))
        self.nodes.append(Node(name, op, reads))
        self.shapes[name] = shape
        self._memory[name] = self._memory[reads[0]] if isinstance(op, Dropout) else name
        return Value(name, shape)

    def node_of(self, value: Any) -> str:
        """Name of a node whose output a value is; adds the nodes that make a view.

        Raises:
            NotExpressible: When no operation makes the view.
        """
        if not isinstance(value, Value):
            raise NotExpressible(f"reads {_kind(value)} where an activation is expected")
        if value.index is None:
            return value.name
        key = (value.name, value.size, value.index.numpy().tobytes())
        if key not in self._made:
            ops = find_ops(value)
            if ops is None:
                raise NotExpressible(
                    f"no operation rearranges shape {value.shape} into what is read here, shape {value.size}"
                )
            name = value.name
            for op in ops:
                name = self.add(op, name).name
            self._made[key] = name
        return self._made[key]

    def apply(self, op: AnyOp, *values: Any) -> Value:
        """Adds a node that reads these values."""
        return self.add(op, *[self.node_of(value) for value in values])

    def elementwise(self, op: AnyOp, value: Any) -> Value:
        """Adds a node that changes every element on its own; a reshaped value stays reshaped."""
        if isinstance(value, Value) and value.is_reshaped:
            return replace(self.add(op, value.name), index=value.index)
        return self.apply(op, value)

    def tie(self, op: AnyOp, values: Sequence[Any]) -> Value:
        """Adds a sum or product."""
        if not all(isinstance(value, Value) for value in values):
            raise NotExpressible(f"combines {' and '.join(map(_kind, values))}; expected two activations")
        if len({len(value.size) for value in values}) > 1:
            raise NotExpressible(f"combines shapes {' and '.join(str(value.size) for value in values)}")
        size = max([value.size for value in values], key=lambda shape: torch.Size(shape).numel())
        result = self.add(op, *[self._operand(without_expansion(value)) for value in values])
        if torch.Size(result.shape).numel() != torch.Size(size).numel():
            raise NotExpressible(f"combines shapes {' and '.join(str(value.size) for value in values)}")
        return viewed(result.name, result.shape, size)

    def _operand(self, value: Value) -> str:
        """A node to combine; a feature vector with extents of 1 behind it needs none of its own."""
        is_point = value.size == (value.size[0],) + (1,) * (len(value.size) - 1)
        if is_point and value.is_reshaped and value.shape in (value.size, value.size[:1]):
            return value.name
        return self.node_of(value)

    def own(self, node: str, entry: str, stored: Any) -> None:
        """Says which stored tensor an entry of a node's state is.

        Raises:
            NotExpressible: When it is computed, or belongs to another node already.
        """
        if not isinstance(stored, Stored) or stored.path is None:
            raise NotExpressible(f"its {entry} is computed from other tensors rather than stored")
        if stored.is_parameter and stored.path in self._used:
            raise NotExpressible(f"parameter {stored.path!r} is used a second time; weights cannot be shared")
        self._used[stored.path] = node
        self.state[f"{node}.{entry}"] = stored.tensor

    def overwrite(self, old: Any, new: Value, at: FxNode) -> None:
        """A call wrote its result over what it read: later reads of that see the result."""
        if not isinstance(old, Value):
            return
        memory = self._memory[old.name]
        for node, value in list(self.values.items()):
            if isinstance(value, Value) and self._memory[value.name] == memory:
                if value.size == new.size and value.is_reshaped:
                    self.values[node] = new
                elif any(user > at for user in node.users):
                    raise NotExpressible("writes over a tensor of which a part is read later")

    def _live_nodes(self) -> tuple[Node, ...]:
        """The nodes that the output depends on (and the input), in order."""
        live = {self.nodes[0].name, self.nodes[-1].name}
        for node in reversed(self.nodes):
            if node.name in live:
                live.update(node.inputs)
        gone = [entry for entry in self.state if entry.rpartition(".")[0] not in live]
        for entry in gone:
            del self.state[entry]
        return tuple([node for node in self.nodes if node.name in live])


def _kind(value: Any) -> str:
    if isinstance(value, Stored):
        return f"the stored tensor {value.path or '(computed)'} of shape {tuple(value.tensor.shape)}"
    return f"shape {value.size}" if isinstance(value, Value) else f"a {type(value).__name__}"
