"""Connection edits: mask single weights of a layer, or bring some back.

The genome holds one number per layer, its `fan_in`: how many weights each output unit has left, the same
for all of them (constant fan-in sparsity, Lasby et al. 2024). So its cost is exact without the mask, and
stays so when units come and go. Which weights these are is a matter of inheritance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from msgspec import Meta
from msgspec.structs import replace

from evo_topo.edits.base import Edit, EditError, RandomSource, child_of, weighted_layer, with_op
from evo_topo.genome import Genome
from evo_topo.ops import MAX_ELEMENTS, Conv, Linear

Count = Annotated[int, Meta(ge=1, le=MAX_ELEMENTS)]


class PruneConnections(Edit, frozen=True, tag="prune_connections"):
    """Masks the least important weights of every output unit of a layer (LeCun et al. 1989).

    Attributes:
        layer: Name of a Conv or Linear node.
        count: Weights that each output unit loses.
        criterion: What ranks them: ``obd`` (which takes a probe batch; by magnitude without one) or
            ``magnitude``.
    """

    layer: str
    count: Count = 1
    criterion: Literal["obd", "magnitude"] = "obd"

    def apply(self, genome: Genome) -> Genome:
        op, width = _weighted(genome, self.layer)
        left = connections(op, width) - self.count
        if self.count < 1 or left < 1:
            raise EditError(
                f"{self.layer!r} has {connections(op, width)} connections per unit: "
                f"from 1 to all but one can go, not {self.count}"
            )
        return child_of(with_op(genome, self.layer, with_fan_in(op, left, width)), self)

    def describe(self) -> str:
        return f"prune {self.count} connections per unit of {self.layer}"


class GrowConnections(Edit, frozen=True, tag="grow_connections"):
    """Brings masked weights back, at zero: those of largest loss gradient (RigL, Evci et al. 2020).

    Without a labelled probe batch they are drawn (SET, Mocanu et al. 2018).

    Attributes:
        layer: Name of a sparse Conv or Linear node.
        count: Weights that each output unit gains.
    """

    layer: str
    count: Count = 1
    is_function_preserving: ClassVar[bool] = True

    def apply(self, genome: Genome) -> Genome:
        op, width = _weighted(genome, self.layer)
        masked = op.dense_fan_in(width) - connections(op, width)
        if not 1 <= self.count <= masked:
            raise EditError(
                f"{self.layer!r} has {masked} masked connections per unit: {self.count} cannot come back"
            )
        return child_of(
            with_op(genome, self.layer, with_fan_in(op, connections(op, width) + self.count, width)), self
        )

    def describe(self) -> str:
        return f"grow {self.count} connections per unit of {self.layer}"


def legal_connection_edits(genome: Genome) -> Iterator[PruneConnections | GrowConnections]:
    """The connection edits that apply, lazily: one per kind and layer, of one connection per unit."""
    for layer, present, masked in connection_sites(genome):
        if present > 1:
            yield PruneConnections(layer)
        if masked:
            yield GrowConnections(layer)


def random_connection_edits(
    genome: Genome, rng: RandomSource
) -> Iterator[PruneConnections | GrowConnections]:
    """One per kind and layer, each of a random size, up to half of a unit's connections."""
    for layer, present, masked in connection_sites(genome):
        if present > 1:
            yield PruneConnections(layer, 1 + int(rng.random() * (present - 1) / 2))
        if masked:
            yield GrowConnections(layer, 1 + int(rng.random() * (masked - 1) / 2))


def connection_sites(genome: Genome) -> Iterator[tuple[str, int, int]]:
    """Name, connections per unit and masked ones, of each layer that may be sparse."""
    for node in genome.nodes:
        if isinstance(node.op, Conv | Linear) and not node.op.binary:
            width = genome.shapes[node.inputs[0]][0]
            present = connections(node.op, width)
            yield node.name, present, node.op.dense_fan_in(width) - present


def connections(op: Conv | Linear, width: int) -> int:
    """Weights per output unit that are not masked, of a layer that reads `width` channels."""
    return op.fan_in or op.dense_fan_in(width)


def with_fan_in(op: Conv | Linear, fan_in: int, width: int) -> Conv | Linear:
    """The layer with so many connections per output unit; dense, where these are all."""
    return replace(op, fan_in=None if fan_in == op.dense_fan_in(width) else fan_in)


def _weighted(genome: Genome, layer: str) -> tuple[Conv | Linear, int]:
    """A Conv or Linear with real weights, and the number of channels that it reads."""
    op = weighted_layer(genome, layer)
    if op.binary:
        raise EditError(f"{layer!r} is binary: its weights are never zero")
    return op, genome.shapes[genome.by_name[layer].inputs[0]][0]
