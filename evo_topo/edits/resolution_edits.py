"""Resolution edits: move a stride from the convolutions that read a map to those that make it, or back.

A global pool reads a map of any extents, so it has a stride to give, and room for one. So has a linear layer
behind a `Flatten`: it keeps the weights of the places that stay, and those of places that come start at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Self

import msgspec

from evo_topo.channels import route_channels
from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.regions import Region, region_behind, regions
from evo_topo.edits.surgery import conv_of, with_ops
from evo_topo.genome import Genome
from evo_topo.ops import Conv, Flatten, GlobalPool, Linear
from evo_topo.units import NEW

NEW_STRIDE = 2
"""Of the convolutions that make a map which no convolution reads."""


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
        return (cls(conv) for conv, (_, stranger) in regions(genome).items() if stranger is None)


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
