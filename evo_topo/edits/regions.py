"""Maps, and all that must change its resolution together with one."""

from __future__ import annotations

from typing import NamedTuple

from evo_topo.edits.base import EditError
from evo_topo.edits.surgery import conv_of
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

_PIXELWISE = {Norm, Activation, Dropout, Add, Multiply, Concat}


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
    region, stranger = regions(genome).get(conv) or _flood(genome, conv)
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


@once_per_genome
def regions(genome: Genome) -> dict[str, tuple[Region, str | None]]:
    """What `_flood` finds behind the first maker of each map."""
    seen: set[str] = set()
    found = {}
    for node in genome.nodes:
        if isinstance(node.op, Conv) and node.name not in seen:
            found[node.name] = _flood(genome, node.name)
            seen.update(found[node.name][0].makers)  # the region behind each of them is the same
    return found
