"""Gradients laid out in memory as the values they belong to.

The ways back through a flattening, an average over all points, and a slice lay gradients out channel by
channel, whatever the layout of the value. An activation and a BatchNorm before it, in channels_last, then go
through two layouts at once: on a CPU that takes ten to thirty times as long.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils.hooks import RemovableHandle

from evo_topo.sampling import SamplingConv2d

_FUNCTIONS = {torch.flatten, operator.getitem}
_MODULES = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, SamplingConv2d)


def keep_layouts(model: nn.Module) -> list[RemovableHandle]:
    """Turns gradients to channels_last where an operation would hand them on in another layout.

    Args:
        model: A network in channels_last; one that is not from `build` stays as it is.

    Returns:
        Handles whose `remove` undoes it.
    """
    if not isinstance(model, GraphModule):
        return []
    readers = [node for node in model.graph.nodes if _forgets_layout(node, model)]
    makers = dict.fromkeys(maker for node in readers for maker in _makers(node))
    return [model.get_submodule(str(node.target)).register_forward_hook(_turn) for node in makers]


def _forgets_layout(node: Node, model: GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _MODULES)
    return node.target in _FUNCTIONS


def _makers(node: Node) -> Iterator[Node]:
    """The modules that make what a node reads, be it through sums and concatenations."""
    for read in node.all_input_nodes:
        if read.op == "call_module":
            yield read
        elif read.op == "call_function":
            yield from _makers(read)


def _turn(module: nn.Module, args: tuple[Tensor, ...], made: Tensor) -> None:
    if made.dim() == 4 and made.requires_grad:
        made.register_hook(_in_channels_last)  # type: ignore[no-untyped-call]


def _in_channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
