"""Genome to network: `build` gives an ordinary torch module whose forward is plain code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode
from torch.utils.hooks import RemovableHandle

from evo_topo.binary import BinaryConv1d, BinaryConv2d, BinaryLinear
from evo_topo.genome import Genome, Node
from evo_topo.masked import MaskedConv1d, MaskedConv2d, MaskedLinear
from evo_topo.ops import (
    Activation,
    Add,
    AnyOp,
    Conv,
    Dropout,
    GlobalPool,
    Linear,
    Norm,
    Pool,
    Shape,
)

_LAYER: dict[int, Callable[..., nn.Module]] = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d}
_MASKED: dict[int, Callable[..., nn.Module]] = {0: MaskedLinear, 1: MaskedConv1d, 2: MaskedConv2d}
_BINARY: dict[int, Callable[..., nn.Module]] = {0: BinaryLinear, 1: BinaryConv1d, 2: BinaryConv2d}
_NORM: dict[int, Callable[..., nn.Module]] = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_POOL: dict[tuple[str, int], Callable[..., nn.Module]] = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("avg", 1): nn.AvgPool1d,
    ("avg", 2): nn.AvgPool2d,
}
_GLOBAL_POOL: dict[tuple[str, int], Callable[..., nn.Module]] = {
    ("max", 1): nn.AdaptiveMaxPool1d,
    ("max", 2): nn.AdaptiveMaxPool2d,
    ("avg", 1): nn.AdaptiveAvgPool1d,
    ("avg", 2): nn.AdaptiveAvgPool2d,
}
_ACTIVATION: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
}


def build(genome: Genome, seed: int = 0) -> GraphModule:
    """Builds the network of a genome.

    Args:
        genome: The network as data.
        seed: Seed of the weights (torch's defaults); the global random state stays as it was.

    Returns:
        A module from inputs of shape ``(batch, *genome.input_shape)`` to logits of shape
        ``(batch, genome.num_classes)``. Its submodules bear the names of the nodes, and ``.code``
        shows the forward pass.
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


def _emit(genome: Genome, node: Node, reads: list[FxNode], root: nn.Module, graph: Graph) -> FxNode:
    """Adds one node's code to the graph, and its module to the root where it has one."""
    match node.op.routing, reads:
        case _, []:
            placeholder: FxNode = graph.placeholder(node.name)
            return placeholder
        case "ties", [*_]:
            combine = operator.add if isinstance(node.op, Add) else operator.mul
            total = reads[0]
            for read in reads[1:]:
                total = graph.call_function(combine, (total, read))
            return total
        case "joins", [*_]:
            return graph.call_function(torch.cat, (reads, 1))
        case "spreads", [read]:
            return graph.call_function(torch.flatten, (read, 1))
    shape = genome.shapes[node.inputs[0]]
    module = _module(node.op, shape)
    if module is None:
        output: FxNode = graph.output(reads[0])
        return output
    root.add_module(node.name, module)
    value: FxNode = graph.call_module(node.name, (reads[0],))
    return value


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
            return _ACTIVATION[op.function]()
        case Pool():
            return _POOL[op.mode, dims](op.kernel, op.stride, op.padding)
        case GlobalPool():
            return _GLOBAL_POOL[op.mode, dims](1)
        case Dropout():
            return nn.Dropout(op.rate)
    return None


def _layer(op: Conv | Linear, dims: int) -> Callable[..., nn.Module]:
    if op.fan_in is not None:
        return partial(_MASKED[dims], fan_in=op.fan_in)
    return _BINARY[dims] if op.binary else _LAYER[dims]


def hook_reads(model: nn.Module, layer: str, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Shows a function what a Conv or Linear multiplies with its weights; what it returns takes the place.

    A real layer multiplies its inputs, a binary one their signs.

    Args:
        model: A network from `build`.
        layer: Name of the node.
        hook: Gets a tensor (batch, channels, ...), and may return another of its shape.
    """
    module = model.get_submodule(layer)
    if isinstance(module, BinaryLinear | BinaryConv1d | BinaryConv2d):
        return module.sign.register_forward_hook(lambda _, args, signs: hook(signs))
    return module.register_forward_pre_hook(lambda _, args: hook(args[0]))


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Sets the training flag of every module within the context, and gives each its own back after."""
    flags = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag
