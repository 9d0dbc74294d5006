"""Genome to network: `build` gives an ordinary torch module whose forward is plain code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from evo_topo.binary import BinaryConv1d, BinaryConv2d, BinaryLinear
from evo_topo.genome import Genome, Node
from evo_topo.in_place import overwritten
from evo_topo.masked import MaskedConv1d, MaskedConv2d, MaskedLinear
from evo_topo.modules import Affine, LeakyReLU, ReLU, ReLU6, Selection
from evo_topo.ops import (
    Activation,
    AdaptivePool,
    Add,
    AnyOp,
    Conv,
    Dropout,
    GlobalPool,
    Linear,
    Norm,
    Output,
    Pad,
    Pool,
    Scale,
    Select,
    Shape,
)
from evo_topo.sampling import SamplingConv1d, SamplingConv2d

_LAYER: dict[int, Callable[..., nn.Module]] = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d}
_SAMPLING: dict[int, Callable[..., nn.Module]] = {1: SamplingConv1d, 2: SamplingConv2d}
_MASKED: dict[int, Callable[..., nn.Module]] = {0: MaskedLinear, 1: MaskedConv1d, 2: MaskedConv2d}
_BINARY: dict[int, Callable[..., nn.Module]] = {0: BinaryLinear, 1: BinaryConv1d, 2: BinaryConv2d}
_NORM: dict[int, Callable[..., nn.Module]] = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_POOL: dict[tuple[str, int], Callable[..., nn.Module]] = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("avg", 1): nn.AvgPool1d,
    ("avg", 2): nn.AvgPool2d,
}
_ADAPTIVE_POOL: dict[tuple[str, int], Callable[..., nn.Module]] = {
    ("max", 1): nn.AdaptiveMaxPool1d,
    ("max", 2): nn.AdaptiveMaxPool2d,
    ("avg", 1): nn.AdaptiveAvgPool1d,
    ("avg", 2): nn.AdaptiveAvgPool2d,
}
_PAD: dict[int, Callable[..., nn.Module]] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d}
_ACTIVATION: dict[str, Callable[..., nn.Module]] = {
    "relu": ReLU,
    "relu6": ReLU6,
    "leaky_relu": LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "mish": nn.Mish,
}


def build(genome: Genome, seed: int = 0) -> GraphModule:
    """Builds the network of a genome.

    Args:
        genome: The network as data.
        seed: Seed of the weights (torch's defaults); the global random state stays as it was.

    Returns:
        A module from inputs of shape ``(batch, *genome.input_shape)`` to logits of shape
        ``(batch, genome.num_classes)``. Its submodules bear the names of the nodes, and ``.code``
        shows the forward pass. As in torchvision's networks, sums and activations write over what they alone
        read: what a module makes is kept by `hook_value`, or a clone.
    """
    root = nn.Module()
    graph = Graph()
    values: dict[str, FxNode] = {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for node in genome.nodes:
            reads = [values[name] for name in node.inputs]
            values[node.name] = _emit(genome, node, reads, root, graph)
    return GraphModule(root, graph, class_name="Network")


def build_some(genome: Genome, nodes: Iterable[Node], seed: int = 0) -> nn.Module:
    """The modules of some of a genome's nodes, under their names; without a forward pass.

    Args:
        genome: The network as data.
        nodes: Some of its nodes.
        seed: Seed of the weights; not those that `build` would draw.
    """
    root = nn.Module()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for node in nodes:
            makes_module = node.inputs and node.op.routing in ("makes", "carries")
            module = _module(node.op, genome.shapes[node.inputs[0]]) if makes_module else None
            if module is not None:
                root.add_module(node.name, module)
    return root


def node_value(node: Node, model: nn.Module, reads: Sequence[Tensor]) -> Tensor:
    """What one node, but the input, computes of what it reads: the forward pass of `build`, node by node.

    Args:
        node: The node.
        model: Holds its module.
        reads: Values of its inputs, (examples, ...) each.
    """
    match node.op.routing:
        case "ties":
            dims = max(read.dim() for read in reads)
            points = [read[(..., *[None] * (dims - read.dim()))] for read in reads]
            return reduce(operator.add if isinstance(node.op, Add) else operator.mul, points)
        case "joins":
            return torch.cat(list(reads), 1)
        case "spreads":
            return torch.flatten(reads[0], 1)
    if isinstance(node.op, Output):
        return reads[0]
    if isinstance(node.op, Select):
        return reads[0][:, list(node.op.channels)]
    value: Tensor = model.get_submodule(node.name)(reads[0])
    return value


def _emit(genome: Genome, node: Node, reads: list[FxNode], root: nn.Module, graph: Graph) -> FxNode:
    """Adds one node's code to the graph, and its module to the root where it has one."""
    over = overwritten(genome, node)
    match node.op.routing, reads:
        case _, []:
            placeholder: FxNode = graph.placeholder(node.name)
            return placeholder
        case "ties", [*_]:
            dims = len(genome.shapes[node.name])
            points = [
                _as_points(graph, read, dims - len(genome.shapes[name]))
                for read, name in zip(reads, node.inputs, strict=True)
            ]
            whole = [genome.shapes[name] == genome.shapes[node.name] for name in node.inputs]
            return _combine(graph, node, points, over, whole.index(True))
        case "joins", [*_]:
            return graph.call_function(torch.cat, (reads, 1))
        case "spreads", [read]:
            return graph.call_function(torch.flatten, (read, 1))
        case "selects", [read] if isinstance(node.op, Select) and _is_slice(node.op.channels):
            first, last = node.op.channels[0], node.op.channels[-1]
            return graph.call_function(operator.getitem, (read, (slice(None), slice(first, last + 1))))
    shape = genome.shapes[node.inputs[0]]
    module = _module(node.op, shape)
    if module is None:
        output: FxNode = graph.output(reads[0])
        return output
    root.add_module(node.name, module)
    value: FxNode = graph.call_module(node.name, (reads[0],), {} if over is None else {"inplace": True})
    return value


def _combine(graph: Graph, node: Node, reads: list[FxNode], over: str | None, whole: int) -> FxNode:
    """The sum or product, one input after the other; written over one of the first two, if that is given.

    It begins with an input of its own extents, which later sums are written over: others may be points.
    """
    combine = operator.add if isinstance(node.op, Add) else operator.mul
    first = whole if over is None else node.inputs.index(over)
    total = reads.pop(first)
    for place, read in enumerate(reads):
        in_place = isinstance(node.op, Add) and (place > 0 or over is not None)
        total = graph.call_function(operator.iadd if in_place else combine, (total, read))
    return total


def _is_slice(channels: Sequence[int]) -> bool:
    return list(channels) == list(range(channels[0], channels[-1] + 1))


def _as_points(graph: Graph, read: FxNode, missing: int) -> FxNode:
    """Gives a feature vector the extents (all 1) that it lacks."""
    if not missing:
        return read
    at = (slice(None), slice(None), *[None] * missing)
    return graph.call_function(operator.getitem, (read, at))


def _module(op: AnyOp, shape: Shape) -> nn.Module | None:
    """The torch module of an operation that reads the given shape; None for the output."""
    dims = len(shape) - 1
    match op:
        case Conv():
            return _layer(op, dims)(
                shape[0],
                op.out_channels,
                op.kernel,
                op.stride,
                op.padding,
                op.dilation,
                op.groups,
                op.bias,
            )
        case Linear():
            return _layer(op, dims)(shape[0], op.out_features, op.bias)
        case Norm():
            return _NORM[dims](shape[0], eps=op.eps)
        case Activation():
            return _ACTIVATION[op.function](*([] if op.slope is None else [op.slope]))
        case Pool():
            settings = {} if op.mode == "max" else {"count_include_pad": op.count_include_pad}
            return _POOL[op.mode, dims](op.kernel, op.stride, op.padding, ceil_mode=op.ceil_mode, **settings)
        case GlobalPool():
            return _ADAPTIVE_POOL[op.mode, dims](1)
        case AdaptivePool():
            return _ADAPTIVE_POOL[op.mode, dims](op.size)
        case Pad():
            margins = [m for pair in zip(reversed(op.before), reversed(op.after), strict=True) for m in pair]
            return _PAD[dims](tuple(margins), 0.0 if op.fill == "zero" else -torch.inf)
        case Scale():
            return Affine(op.factor, op.offset)
        case Select():
            return Selection(op.channels)
        case Dropout():
            return nn.Dropout(op.rate)
    return None


def _layer(op: Conv | Linear, dims: int) -> Callable[..., nn.Module]:
    if op.fan_in is not None:
        return partial(_MASKED[dims], fan_in=op.fan_in)
    if op.binary:
        return _BINARY[dims]
    is_sampling = isinstance(op, Conv) and set(op.kernel) == {1} and set(op.stride) != {1}
    return (_SAMPLING if is_sampling else _LAYER)[dims]
