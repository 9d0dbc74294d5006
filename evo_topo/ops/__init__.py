"""The operation vocabulary: what each operation does to shapes, parameters, MACs and units.

How units (channels, neurons) pass through an operation is said in a few words. An operation *makes*
new units (Conv, Linear, Input), *carries* those it reads (Norm, Activation, pooling, Dropout), *ties*
those of several inputs together (Add, Multiply), *joins* them (Concat), *selects* some (Select) or
*spreads* each over several features (Flatten). A grouped convolution makes units too, tied to those it
reads: see `units`.

Shapes are those of one example, without the batch: ``(features,)``, ``(channels, length)`` or
``(channels, height, width)``. Nothing here imports torch.
"""

from evo_topo.ops.base import MAX_CHANNELS, MAX_ELEMENTS, MAX_EXTENT, MAX_WIDTH, Op, OpError, Routing, Shape
from evo_topo.ops.combining import Add, Concat, Flatten, Multiply, Select
from evo_topo.ops.elementwise import Activation, ActivationFunction, Dropout, Norm, Scale
from evo_topo.ops.ends import Input, Output
from evo_topo.ops.layers import Conv, Layer, Linear
from evo_topo.ops.pools import AdaptivePool, GlobalPool, Pad, Pool

__all__ = [
    "MAX_CHANNELS",
    "MAX_ELEMENTS",
    "MAX_EXTENT",
    "MAX_WIDTH",
    "Activation",
    "ActivationFunction",
    "AdaptivePool",
    "Add",
    "AnyOp",
    "Concat",
    "Conv",
    "Dropout",
    "Flatten",
    "GlobalPool",
    "Input",
    "Layer",
    "Linear",
    "Multiply",
    "Norm",
    "Op",
    "OpError",
    "Output",
    "Pad",
    "Pool",
    "Routing",
    "Scale",
    "Select",
    "Shape",
    "is_plain",
]

AnyOp = (
    Input
    | Conv
    | Linear
    | Norm
    | Activation
    | Pool
    | GlobalPool
    | AdaptivePool
    | Pad
    | Scale
    | Select
    | Flatten
    | Add
    | Multiply
    | Concat
    | Dropout
    | Output
)
"""Every operation: what a genome's JSON may hold."""


def is_plain(op: AnyOp) -> bool:
    """Whether an operation is neither sparse nor binary."""
    return not isinstance(op, Layer) or (op.fan_in is None and not op.binary)
