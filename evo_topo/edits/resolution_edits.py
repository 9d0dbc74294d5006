"""Resolution edits: move a stride from the convolutions that read a map to those that make it, or back.

A global pool reads a map of any extents, so it has a stride to give, and room for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

import msgspec

from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.surgery import conv_of, with_ops
from evo_topo.genome import Genome, once_per_genome
from evo_topo.ops import Activation, Add, Concat, Conv, Dropout, GlobalPool, Multiply, Norm

NEW_STRIDE = 2
"""Of the convolutions that make a map which global pools alone read."""
_PIXELWISE = {Norm, Activation, Dropout, Add, Multiply, Concat}


class DownsampleEarlier(Edit, frozen=True, tag="downsample_earlier"):
    """Moves a stride from the convolutions that read a map to those that make it.

    All nodes between them then work at the lower resolution; weights stay as they are. A map that global
    pools alone read is made with a new stride.

    Attributes:
        conv: One of the convolutions that make the map and take the stride over.
    """

    conv: str

    def apply(self, genome: Genome) -> Genome:
        return _with_moved_stride(genome, self, region_behind(genome, self.conv))

    def joint(self, genome: Genome) -> tuple[str, str] | None:
        self.apply(genome)
        return _only_reader(genome, self.conv)

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(conv) for conv, (_, stranger) in _regions(genome).items() if stranger is None)

    def describe(self) -> str:
        return f"downsample earlier, in {self.conv}"


class DownsampleLater(Edit, frozen=True, tag="downsample_later"):
    """Moves a stride from the convolutions that make a map to those that read it.

    All nodes between them then work at the higher resolution; weights stay as they are. Where global pools
    alone read the map, the stride is gone.

    Attributes:
        conv: One of the convolutions that make the map and give the stride away.
    """

    conv: str

    def apply(self, genome: Genome) -> Genome:
        return _with_moved_stride(genome, self, region_behind(genome, self.conv))

    def joint(self, genome: Genome) -> tuple[str, str] | None:
        self.apply(genome)
        return _only_reader(genome, self.conv)

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(conv) for conv, (_, stranger) in _regions(genome).items() if stranger is None)

    def describe(self) -> str:
        return f"downsample later, behind {self.conv}"


class Region(NamedTuple):
    """Nodes that share one map, in node order.

    Attributes:
        makers: Convolutions that make it.
        between: Nodes that work on it pixel by pixel.
        readers: Convolutions that read it and make another one, and global pools.
    """

    makers: list[str]
    between: list[str]
    readers: list[str]


def region_behind(genome: Genome, conv: str) -> Region:
    """All that must change its resolution together with the map that a convolution makes.

    Raises:
        EditError: When there is no such convolution, or something else makes or reads the map.
    """
    region, stranger = _regions(genome).get(conv) or _flood(genome, conv)
    if stranger is not None:
        raise EditError(
            f"{stranger!r} also makes or reads the map behind {conv!r}: only convolutions and global "
            "pools let its resolution change"
        )
    return region


def _flood(genome: Genome, conv: str) -> tuple[Region, str | None]:
    """The region behind a convolution; and the first other node that makes or reads its map."""
    conv_of(genome, conv)
    extents = genome.shapes[conv][1:]
    makers, between, readers = {conv}, set[str](), set[str]()
    stranger = None
    waiting = [conv]
    while waiting:
        name = waiting.pop()
        # a source of other extents is a gate of one pixel, which any map can be multiplied by
        sources = genome.by_name[name].inputs if name in between else ()
        steps = [(other, makers) for other in sources if genome.shapes[other][1:] == extents]
        steps += [(other, readers) for other in genome.readers[name]]
        for other, end in steps:
            if other in between:
                continue
            op = genome.by_name[other].op
            if isinstance(op, Conv) or (isinstance(op, GlobalPool) and end is readers):
                part = end
            elif type(op) in _PIXELWISE and genome.shapes[other][1:] == extents:
                part = between
            else:
                stranger = stranger or other
                continue
            if other not in part and part is not readers:
                waiting.append(other)
            part.add(other)
    parts = (sorted(part, key=genome.positions.__getitem__) for part in (makers, between, readers))
    return Region(*parts), stranger


def _with_moved_stride(genome: Genome, edit: DownsampleEarlier | DownsampleLater, region: Region) -> Genome:
    """The child in which the makers of a map and its readers have exchanged their strides."""
    readers = [name for name in region.readers if isinstance(genome.by_name[name].op, Conv)]
    givers, takers = region.makers, readers
    if isinstance(edit, DownsampleEarlier):
        givers, takers = takers, givers
    ops = {name: conv_of(genome, name)[1] for name in (*givers, *takers)}
    ones = (1,) * (len(genome.shapes[edit.conv]) - 1)
    strides = {ops[name].stride for name in givers}
    if not givers and region.readers:
        strides = {(NEW_STRIDE,) * len(ones)}
    if len(strides) != 1 or max(map(max, strides)) == 1:
        raise EditError(f"{_listed(givers)}: expected one stride above 1, got {_listed(strides)}")
    (stride,) = strides
    if any(ops[name].stride != ones for name in takers):
        raise EditError(f"{_listed(takers)}: expected convolutions of stride 1, which can take one over")
    moved = {name: msgspec.structs.replace(ops[name], stride=ones) for name in givers}
    moved |= {name: msgspec.structs.replace(ops[name], stride=stride) for name in takers}
    child = with_ops(genome, moved, edit)
    if child.shapes[edit.conv] == genome.shapes[edit.conv]:
        raise EditError(f"the map behind {edit.conv!r} is {genome.shapes[edit.conv]}: it stays as it is")
    for name in region.readers:
        if child.shapes[name] != genome.shapes[name]:
            raise EditError(
                f"{name!r} would make {child.shapes[name]} instead of {genome.shapes[name]}: "
                "the stride cannot move across this kernel and padding"
            )
    return child


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "nothing"


def _only_reader(genome: Genome, conv: str) -> tuple[str, str] | None:
    readers = region_behind(genome, conv).readers
    return (readers[0], readers[0]) if len(readers) == 1 else None


@once_per_genome
def _regions(genome: Genome) -> dict[str, tuple[Region, str | None]]:
    """What `_flood` finds behind the first maker of each map."""
    seen: set[str] = set()
    found = {}
    for node in genome.nodes:
        if isinstance(node.op, Conv) and node.name not in seen:
            found[node.name] = _flood(genome, node.name)
            seen.update(found[node.name][0].makers)  # the region behind each of them is the same
    return found
