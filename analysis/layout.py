"""Where things go: the boxes of a network, the members of a family. Plain numbers, no drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple


class Place(NamedTuple):
    """Where one box goes.

    Attributes:
        row: Its row, from the top; every box has its own.
        lane: Its column; 0 holds the longest path from input to output.
        heir: The reader that this box's lane is kept free down to; "" at the end.
        opens_lane: Whether the lane is free from above, down from all that the box reads.
    """

    row: int
    lane: int
    heir: str
    opens_lane: bool


def place_boxes(inputs: Mapping[str, Sequence[str]]) -> dict[str, Place]:
    """Places the boxes of an acyclic graph.

    A box goes on in the lane of a box whose heir it is; a branch gets the first lane that is free all
    the way down from what it reads. The heir of a box is the reader with the longest way still to go.

    Args:
        inputs: For each box, in topological order, the boxes that it reads.
    """
    layers: dict[str, int] = {}
    readers: dict[str, list[str]] = {name: [] for name in inputs}
    for name, sources in inputs.items():
        layers[name] = 1 + max((layers[source] for source in sources), default=-1)
        for source in sources:
            readers[source].append(name)
    depths: dict[str, int] = {}
    heirs: dict[str, str] = {}
    for name in reversed(list(inputs)):
        heirs[name] = max(readers[name], key=depths.__getitem__, default="")
        depths[name] = 1 + depths[heirs[name]] if readers[name] else 0
    order = sorted(inputs, key=lambda name: (layers[name], -depths[name]))
    rows = {name: row for row, name in enumerate(order)}
    busy: list[int] = []  # by lane: the row down to which it is taken
    places: dict[str, Place] = {}
    for name in order:
        inherited = [places[source].lane for source in inputs[name] if heirs[source] == name]
        start = min((rows[source] for source in inputs[name]), default=-1)
        free = [lane for lane, row in enumerate(busy) if row <= start]
        lane = min(inherited or free or [len(busy)])
        busy += [0] * (lane + 1 - len(busy))
        busy[lane] = rows[heirs[name]] if heirs[name] else rows[name]
        places[name] = Place(rows[name], lane, heirs[name], not inherited)
    return places


def route(places: Mapping[str, Place], source: str, reader: str) -> Literal["late", "early", "arc"]:
    """How a connection reaches its reader without crossing a box.

    Returns:
        ``late``: down the lane of its source; ``early``: down that of its reader; else ``arc``, around.
    """
    if places[source].heir == reader:
        return "late"
    return "early" if places[reader].opens_lane else "arc"


def ancestors(parents: Mapping[int, int | None], ids: Sequence[int]) -> set[int]:
    """The given individuals and everyone they descend from.

    Args:
        parents: Every individual's parent, by id.
        ids: Where to start.
    """
    found: set[int] = set()
    for start in ids:
        current: int | None = start
        while current is not None and current not in found:
            found.add(current)
            current = parents[current]
    return found


class FamilyPlaces(NamedTuple):
    """Heights at which to draw a family, downwards from 0.

    Attributes:
        heights: Of each individual, by id.
        ends: Of the end of each survivor's line, by id.
        total: Of the whole picture.
    """

    heights: dict[int, float]
    ends: dict[int, float]
    total: float


def place_family(parents: Mapping[int, int | None], survivors: Sequence[int], room: float) -> FamilyPlaces:
    """Places a family so that no two lines cross: each subtree has a band of its own.

    Every individual that died without children takes a slot of height 1, every survivor one of height
    `room` for the end of its line; the others stand in the middle of what descends from them.

    Args:
        parents: Every individual's parent, by id.
        survivors: Ids of those alive at the end.
        room: Height of a survivor's slot.
    """
    children: dict[int, list[int]] = {member: [] for member in parents}
    stack: list[int] = []
    for member, parent in parents.items():
        (stack if parent is None else children[parent]).append(member)
    alive, total = set(survivors), 0.0
    order: list[int] = []
    heights: dict[int, float] = {}
    ends: dict[int, float] = {}
    while stack:  # depth first
        member = stack.pop()
        order.append(member)
        stack.extend(reversed(children[member]))
        if member in alive:
            ends[member] = total + room / 2
            total += room
        elif not children[member]:
            heights[member] = total + 0.5
            total += 1
    for member in reversed(order):
        below = [heights[child] for child in children[member]]
        if member in alive:
            below.append(ends[member])
        if below:
            heights[member] = (min(below) + max(below)) / 2
    return FamilyPlaces(heights, ends, total)
