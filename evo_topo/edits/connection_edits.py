"""Connection edits: mask single weights of a layer, or bring some back.

The genome holds one number per layer, its `fan_in`: how many weights each output unit has left, the same
for all of them (constant fan-in sparsity, Lasby et al. 2024). So its cost is exact without the mask, and
stays so when units come and go. Which weights these are is a matter of inheritance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from msgspec import Meta
from msgspec.structs import replace

from evo_topo.edits.base import Edit, EditError, RandomSource
from evo_topo.edits.surgery import layer_of, with_ops
from evo_topo.genome import Genome
from evo_topo.ops import MAX_ELEMENTS, Layer

Count = Annotated[int, Meta(ge=1, le=MAX_ELEMENTS)]


class PruneConnections(Edit, frozen=True, tag="prune_connections"):
    """Masks the least important weights of every output unit of a layer (LeCun et al. 1989).

    OBD is as good as its examples: where a network has fitted them until its gradients vanish, magnitude is
    the better guide.

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
        return with_ops(genome, {self.layer: with_fan_in(op, left, width)}, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.layer, self.layer

    def varied(self, genome: Genome, rng: RandomSource) -> Self:
        """Up to half of a unit's connections."""
        present = connections(*_weighted(genome, self.layer))
        return replace(self, count=1 + int(rng.random() * (present - 1) / 2))

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(layer) for layer in _real_layers(genome))

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
        grown = with_fan_in(op, connections(op, width) + self.count, width)
        return with_ops(genome, {self.layer: grown}, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.layer, self.layer

    def varied(self, genome: Genome, rng: RandomSource) -> Self:
        """Up to half of a unit's masked connections."""
        op, width = _weighted(genome, self.layer)
        masked = op.dense_fan_in(width) - connections(op, width)
        return replace(self, count=1 + int(rng.random() * (masked - 1) / 2))

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(layer) for layer in _real_layers(genome) if _weighted(genome, layer)[0].fan_in)

    def describe(self) -> str:
        return f"grow {self.count} connections per unit of {self.layer}"


def connections(op: Layer, width: int) -> int:
    """Weights per output unit that are not masked, of a layer that reads `width` channels."""
    return op.fan_in or op.dense_fan_in(width)


def with_fan_in(op: Layer, fan_in: int, width: int) -> Layer:
    """The layer with so many connections per output unit; dense, where these are all."""
    return replace(op, fan_in=None if fan_in == op.dense_fan_in(width) else fan_in)


def reading_other_channels(old: Layer, new: Layer, before: int, after: int) -> Layer:
    """`new`, which reads `after` channels, with connections that follow from those of `old`.

    The genome does not know the mask, so the rule is one that holds for every mask and keeps the function:
    a layer that reads less keeps the number of connections while there is room (where one was cut, another
    starts at zero), one that reads more keeps the number of masked ones (those of new columns are all there).

    Args:
        old: The parent's layer.
        new: The child's layer, whose number of connections is yet to be set.
        before: Channels that the parent's layer reads.
        after: Channels that the child's layer reads.
    """
    dense, dense_after = old.dense_fan_in(before), new.dense_fan_in(after)
    kept = connections(old, before) + max(dense_after - dense, 0)
    return with_fan_in(new, min(kept, dense_after), after)


def _real_layers(genome: Genome) -> Iterator[str]:
    """Names of the layers that may be sparse."""
    for node in genome.nodes:
        if isinstance(node.op, Layer) and not node.op.binary:
            yield node.name


def _weighted(genome: Genome, layer: str) -> tuple[Layer, int]:
    """A Conv or Linear with real weights, and the number of channels that it reads."""
    node, op = layer_of(genome, layer)
    if op.binary:
        raise EditError(f"{layer!r} is binary: its weights are never zero")
    return op, genome.shapes[node.inputs[0]][0]
