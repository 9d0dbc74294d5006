"""What a genome costs, in closed form. No torch.

Convention everywhere: one multiply-accumulate is one MAC and **FLOPs = 2 x MACs**, of convolutions
and linear layers, for one example; `torch.utils.flop_counter.FlopCounterMode` counts the same, as long
as all layers are dense and real. Of a sparse layer only the weights that are not masked count. A
multiply-accumulate of a binary layer is one binary operation (BOP), and `BOPS_PER_MAC` of them, rounded up
per layer, count as one MAC.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from math import prod

from evo_topo.genome import Genome, Node, once_per_genome
from evo_topo.ops import Layer, Output
from evo_topo.units import mixes_units, unit_table

BOPS_PER_MAC = 64
"""Binary operations that take the time of one MAC: one 64-bit instruction (XNOR-Net, 2016, sec. 4.1)."""


@once_per_genome
def node_macs(genome: Genome) -> dict[str, int]:
    """Multiply-accumulates of each node for one example, by node name; BOPs at their rate."""
    bops = node_bops(genome)
    return {
        node.name: -(-bops[node.name] // BOPS_PER_MAC) if node.name in bops else _operations(genome, node)
        for node in genome.nodes
    }


@once_per_genome
def node_bops(genome: Genome) -> dict[str, int]:
    """Binary multiply-accumulates (XNOR and count) of each binary layer for one example, by node name."""
    return {
        node.name: _operations(genome, node)
        for node in genome.nodes
        if isinstance(node.op, Layer) and node.op.binary
    }


def _operations(genome: Genome, node: Node) -> int:
    return node.op.num_macs(genome.input_shapes(node), genome.shapes[node.name])


def count_bops(genome: Genome) -> int:
    """Binary operations of one forward pass for one example; those of real layers are MACs."""
    return sum(node_bops(genome).values())


@once_per_genome
def count_macs(genome: Genome) -> int:
    """Multiply-accumulates of one forward pass for one example."""
    return sum(node_macs(genome).values())


def count_flops(genome: Genome) -> int:
    """Floating-point operations of one forward pass for one example: 2 x MACs."""
    return 2 * count_macs(genome)


def count_params(genome: Genome) -> int:
    """Trainable parameters; equals ``sum(p.numel() for p in build(genome).parameters())``."""
    return sum(
        node.op.num_params(genome.input_shapes(node), genome.shapes[node.name]) for node in genome.nodes
    )


def parameter_bits(genome: Genome, bits_per_number: int = 32) -> int:
    """Bits of all parameters of a stored network: binary weights take one, masked ones none.

    A binary layer has a scale per unit besides. BatchNorm statistics and the places of masks are left out.
    """
    return sum(_stored_bits(genome, node, bits_per_number) for node in genome.nodes)


def _stored_bits(genome: Genome, node: Node, bits: int) -> int:
    shapes, out = genome.input_shapes(node), genome.shapes[node.name]
    numbers = node.op.num_params(shapes, out)
    if not isinstance(node.op, Layer):
        return bits * numbers
    dense = node.op.dense_fan_in(shapes[0][0])
    if node.op.binary:
        return bits * (numbers - out[0] * dense + out[0]) + out[0] * dense
    return bits * (numbers - out[0] * dense + out[0] * (node.op.fan_in or dense))


def activation_bytes(genome: Genome, bytes_per_element: int = 4) -> int:
    """Bytes of all tensors that one forward pass makes for one example, the input included.

    This is what training holds for the backward pass when no tensor is reused in place.
    """
    return bytes_per_element * sum(_elements_made(genome, node) for node in genome.nodes)


def _elements_made(genome: Genome, node: Node) -> int:
    """Elements of a node's output; a sum or product of n inputs makes n - 1 tensors on the way."""
    if isinstance(node.op, Output):
        return 0
    if node.op.routing == "ties":
        widest = accumulate(map(prod, genome.input_shapes(node)), max)
        return sum(widest) - prod(genome.shapes[node.inputs[0]])
    return prod(genome.shapes[node.name])


@once_per_genome
def unit_macs(genome: Genome) -> dict[str, list[float]]:
    """MACs that each unit accounts for, by group: those saved when it alone is removed.

    A sparse layer that reads a unit saves nothing while other inputs can take up its connections.
    A layer that both makes and reads a unit counts in full for both roles, so the sum over a set of
    units exceeds the exact saving a little; the exact figure comes from applying the edit.
    """
    table, macs = unit_table(genome), node_macs(genome)
    saved = {name: [0.0] * group.width for name, group in table.groups.items()}
    for group in table.groups.values():
        for maker, channels in group.makers.items():
            share = macs[maker] / genome.shapes[maker][0]
            for unit, held in enumerate(channels):
                saved[group.name][unit] += share * len(held)
    for node in genome.nodes:
        if mixes_units(node):
            counts = Counter(table.members[node.inputs[0]])
            less = {count: _saved_by_reading_less(genome, node, count) for count in set(counts.values())}
            for member, count in counts.items():
                if member is not None:
                    saved[member[0]][member[1]] += less[count]
    return saved


def _saved_by_reading_less(genome: Genome, node: Node, channels: int) -> float:
    """MACs that a node saves when it reads some channels less."""
    assert isinstance(node.op, Layer)
    width, macs = genome.shapes[node.inputs[0]][0], node_macs(genome)[node.name]
    dense = node.op.dense_fan_in(width)
    present = node.op.fan_in or dense
    return macs * max(0.0, 1 - dense * (width - channels) / width / present)
