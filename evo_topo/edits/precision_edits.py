"""Precision edits: compute a layer with signs, or with real numbers again."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from evo_topo.edits.base import Edit, EditError, child_of, weighted_layer, with_op
from evo_topo.genome import Genome, Node
from evo_topo.ops import Conv, Linear
from evo_topo.units import unit_table


class Binarise(Edit, frozen=True, tag="binarise"):
    """Makes a layer binary (BinaryNet, Courbariaux et al. 2016; scaled as XNOR-Net, Rastegari et al. 2016).

    The child multiplies signs of inputs with signs of the inherited weights and scales each output unit
    by the mean absolute value of its weights. Layers that read the examples or make the class scores stay
    real, as in both papers.

    Attributes:
        layer: Name of a Conv or Linear node.
    """

    layer: str

    def apply(self, genome: Genome) -> Genome:
        op = weighted_layer(genome, self.layer)
        if op.binary:
            raise EditError(f"{self.layer!r} is binary already")
        if op.fan_in is not None:
            raise EditError(f"{self.layer!r} is sparse, and binary weights are never zero")
        if not _is_inner(genome, genome.by_name[self.layer]):
            raise EditError(f"{self.layer!r} reads the input or makes the class scores: it stays real")
        return child_of(with_op(genome, self.layer, replace(op, binary=True)), self)

    def describe(self) -> str:
        return f"binarise {self.layer}"


class Debinarise(Edit, frozen=True, tag="debinarise"):
    """Makes a binary layer real: its weights become what they were multiplied as, its inputs lose the sign.

    Attributes:
        layer: Name of a binary Conv or Linear node.
    """

    layer: str

    def apply(self, genome: Genome) -> Genome:
        op = weighted_layer(genome, self.layer)
        if not op.binary:
            raise EditError(f"{self.layer!r} is not binary")
        return child_of(with_op(genome, self.layer, replace(op, binary=False)), self)

    def describe(self) -> str:
        return f"make {self.layer} real"


def legal_precision_edits(genome: Genome) -> Iterator[Binarise | Debinarise]:
    """The precision edits that apply, lazily: one per layer at most."""
    for node in genome.nodes:
        if isinstance(node.op, Conv | Linear):
            if node.op.binary:
                yield Debinarise(node.name)
            elif node.op.fan_in is None and _is_inner(genome, node):
                yield Binarise(node.name)


def _is_inner(genome: Genome, node: Node) -> bool:
    """Whether a layer reads some unit and makes some unit, rather than only what is fixed."""
    members = unit_table(genome).members
    return any(members[node.inputs[0]]) and any(members[node.name])
