"""Where a network may write over a value instead of making a new one. No torch."""

from __future__ import annotations

from evo_topo.genome import Genome, Node
from evo_topo.ops import Activation, Add, Concat, Conv, Linear, Multiply, Norm

_FRESH = (Conv, Linear, Norm, Add, Multiply, Concat)
"""They make new tensors that their own gradients do not need; all else may make views, or need them."""
_FROM_OUTPUT = ("relu", "relu6", "leaky_relu")
"""Activations whose gradient follows, bit for bit, from what they make. Of the others torch keeps what they
read, and would copy it; the gradient of an ELU follows from its output, too, but is rounded otherwise."""


def overwritten(genome: Genome, node: Node) -> str | None:
    """The input that a node may write its own value over: of the same shape, and read by nobody else.

    A sum takes one of its first two inputs, whose order makes no difference to rounding.
    """
    if isinstance(node.op, Activation):
        inputs = node.inputs if node.op.function in _FROM_OUTPUT else ()
    else:
        inputs = node.inputs[:2] if isinstance(node.op, Add) else ()
    for name in inputs:
        is_read_once = genome.readers[name] == (node.name,) and node.inputs.count(name) == 1
        is_fresh = isinstance(genome.by_name[name].op, _FRESH)
        if is_read_once and is_fresh and genome.shapes[name] == genome.shapes[node.name]:
            return name
    return None
