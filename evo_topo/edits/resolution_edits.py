"""Resolution edits: move a stride from the convolutions that read a map to those that make it, or back.

A global pool reads a map of any extents, so it has a stride to give, and room for one. So has a linear layer
behind a `Flatten`: it keeps the weights of the places that stay, and those of places that come start at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple, Self

import msgspec

from evo_topo.channels import route_channels
from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.surgery import conv_of, with_ops
from evo_topo.genome import Genome, once_per_genome
from evo_topo.ops import (
    Activation,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalPool,
    Linear,
    Multiply,
    Norm,
    is_plain,
)
from evo_topo.units import NEW

NEW_STRIDE = 2
"""Of the convolutions that make a map which no convolution reads."""
_PIXELWISE = {Norm, Activation, Dropout, Add, Multiply, Concat}


class _ResolutionEdit(Edit, frozen=True):
    """An edit of the resolution of one map.

    Attributes:
        conv: One of the convolutions that make the map.
    """

    conv: str

    def apply(self, genome: Genome) -> Genome:
        return _with_moved_stride(genome, self, region_behind(genome, self.conv))

    def channel_map(self, genome: Genome) -> dict[str, list[int]]:
        child = self.apply(genome)
        readers = region_behind(genome, self.conv).readers
        flat = [name for name in readers if isinstance(genome.by_name[name].op, Flatten)]
        given = {name: _kept_places(genome, child, self.conv, name) for name in flat}
        return route_channels(genome, given) if given else {}

    def joint(self, genome: Genome) -> tuple[str, str] | None:
        self.apply(genome)
        readers = region_behind(genome, self.conv).readers
        while len(readers) == 1 and not isinstance(genome.by_name[readers[0]].op, Conv | GlobalPool | Linear):
            readers = list(genome.readers[readers[0]])
        return (readers[0], readers[0]) if len(readers) == 1 else None

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(conv) for conv, (_, stranger) in _regions(genome).items() if stranger is None)


class DownsampleEarlier(_ResolutionEdit, frozen=True, tag="downsample_earlier"):
    """Moves a stride from the convolutions that read a map to those that make it.

    All nodes between them then work at the lower resolution; weights stay as they are. A map that no
    convolution reads, but global pools or linear layers do, is made with a new stride.
    """

    def describe(self) -> str:
        return f"downsample earlier, in {self.conv}"


class DownsampleLater(_ResolutionEdit, frozen=True, tag="downsample_later"):
    """Moves a stride from the convolutions that make a map to those that read it.

    All nodes between them then work at the higher resolution; weights stay as they are. Where no convolution
    reads the map, the stride is gone.
    """

    def describe(self) -> str:
        return f"downsample later, behind {self.conv}"


class Region(NamedTuple):
    """Nodes that share one map, in node order.

    Attributes:
        makers: Convolutions that make it.
        between: Nodes that work on it pixel by pixel.
        readers: Convolutions that read it and make another one, global pools, and each `Flatten` whose
            features linear layers read.
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
            f"{stranger!r} also makes or reads the map behind {conv!r}: only convolutions, global "
            "pools and linear layers let its resolution change"
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
            if isinstance(op, Conv) or (end is readers and _reads_any_extents(genome, other)):
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


def _with_moved_stride(genome: Genome, edit: _ResolutionEdit, region: Region) -> Genome:
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
        is_flat = isinstance(genome.by_name[name].op, Flatten)
        if child.shapes[name] != genome.shapes[name] and not is_flat:
            raise EditError(
                f"{name!r} would make {child.shapes[name]} instead of {genome.shapes[name]}: "
                "the stride cannot move across this kernel and padding"
            )
    return child


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "nothing"


def _reads_any_extents(genome: Genome, name: str) -> bool:
    """Whether a node is a global pool, or a `Flatten` whose features plain linear layers alone read."""
    op = genome.by_name[name].op
    if not isinstance(op, Flatten):
        return isinstance(op, GlobalPool)
    waiting, seen = [name], {name}
    while waiting:
        readers = [genome.by_name[reader] for reader in genome.readers[waiting.pop()]]
        if not readers:
            return False
        for reader in readers:
            is_between = isinstance(reader.op, Norm | Activation | Dropout)
            if not is_between and not (isinstance(reader.op, Linear) and is_plain(reader.op)):
                return False
            if is_between and reader.name not in seen:
                seen.add(reader.name)
                waiting.append(reader.name)
    return True


def _kept_places(genome: Genome, child: Genome, conv: str, flatten: str) -> list[int]:
    """For each feature of the child's `Flatten`, the parent's feature of the same place, or `NEW`."""
    (before,) = genome.input_shapes(genome.by_name[flatten])
    (after,) = child.input_shapes(child.by_name[flatten])
    old, new = (conv_of(which, conv)[1].stride for which in (genome, child))
    found = []
    for channel, *place in product(*map(range, after)):
        # in units of what the convolution reads, both maps have a place every so many steps
        at = [divmod(p * n, o) for p, n, o in zip(place, new, old, strict=True)]
        index = channel
        for (steps, _), extent in zip(at, before[1:], strict=True):
            index = index * extent + steps
        found.append(NEW if any(rest for _, rest in at) else index)
    return found


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
