"""Gradients laid out in memory as the values they belong to.

The ways back through a flattening, an average over all points, and a slice lay gradients out channel by
channel, whatever the layout of the value. An activation and a BatchNorm before it, in channels_last, then go
through two layouts at once: on a CPU that takes ten to thirty times as long.
"""

from __future__ import annotations

import operator

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
    waiting = [node for node in model.graph.nodes if _forgets_layout(node, model)]
    seen: set[Node] = set()
    handles = []
    while waiting:
        for read in waiting.pop().all_input_nodes:
            if read in seen:
                continue
            seen.add(read)
            if read.op == "call_module":
                handles.append(model.get_submodule(str(read.target)).register_forward_hook(_turn))
            elif read.op == "call_function":  # sums and concatenations hand it on
                waiting.append(read)
    return handles


def _forgets_layout(node: Node, model: GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _MODULES)
    return node.target in _FUNCTIONS


def _turn(module: nn.Module, args: tuple[Tensor, ...], made: Tensor) -> None:
    if isinstance(made, Tensor) and made.dim() == 4 and made.requires_grad:
        made.register_hook(_in_channels_last)  # type: ignore[no-untyped-call]


def _in_channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
