"""Precision edits: compute a layer with signs, or with real numbers again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from msgspec.structs import replace

from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.surgery import layer_of, with_ops
from evo_topo.genome import Genome, Node
from evo_topo.ops import Layer
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
        node, op = layer_of(genome, self.layer)
        if op.binary:
            raise EditError(f"{self.layer!r} is binary already")
        if op.fan_in is not None:
            raise EditError(f"{self.layer!r} is sparse, and binary weights are never zero")
        if not _is_inner(genome, node):
            raise EditError(f"{self.layer!r} reads the input or makes the class scores: it stays real")
        return with_ops(genome, {self.layer: replace(op, binary=True)}, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.layer, self.layer

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        for node in genome.nodes:
            if isinstance(node.op, Layer) and not node.op.binary:
                yield cls(node.name)

    def describe(self) -> str:
        return f"binarise {self.layer}"


class Debinarise(Edit, frozen=True, tag="debinarise"):
    """Makes a binary layer real: its weights become what they were multiplied as, its inputs lose the sign.

    Attributes:
        layer: Name of a binary Conv or Linear node.
    """

    layer: str

    def apply(self, genome: Genome) -> Genome:
        _, op = layer_of(genome, self.layer)
        if not op.binary:
            raise EditError(f"{self.layer!r} is not binary")
        return with_ops(genome, {self.layer: replace(op, binary=False)}, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.layer, self.layer

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        for node in genome.nodes:
            if isinstance(node.op, Layer) and node.op.binary:
                yield cls(node.name)

    def describe(self) -> str:
        return f"make {self.layer} real"


def _is_inner(genome: Genome, node: Node) -> bool:
    """Whether a layer reads some unit and makes some unit, rather than only what is fixed."""
    members = unit_table(genome).members
    return any(members[node.inputs[0]]) and any(members[node.name])
