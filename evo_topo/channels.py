"""Channels of every tensor after a change of units: where each one comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from math import prod

from evo_topo.channel_slots import is_maker
from evo_topo.genome import Genome
from evo_topo.ops import Select
from evo_topo.units import NEW, Member, UnitMap, unit_table


def channel_origins(genome: Genome, unit_map: UnitMap) -> dict[str, list[int]]:
    """Where every channel of every tensor of the child comes from, after a change of units.

    Args:
        genome: The parent.
        unit_map: Per changed group: for each unit of the child, the parent's unit or `NEW`, in order.

    Returns:
        For each node: for each channel of the child's tensor, the channel of the parent's tensor
        that it comes from, or `NEW`. Copies of a block of channels stand right behind it, in every
        tensor, and new ones behind those, so tied tensors stay aligned.
    """
    table = unit_table(genome)
    copies: dict[Member, list[int]] = {
        (group, unit): [0, 0] for group in unit_map for unit in range(table.groups[group].width)
    }
    for group, units in unit_map.items():
        last = NEW
        for unit in units:
            last = last if unit == NEW else unit
            copies[group, last][unit == NEW] += 1
    changed = {maker for group in unit_map for maker in table.groups[group].makers}
    return route_channels(genome, {name: _repeat_runs(table.members[name], copies) for name in changed})


def route_channels(genome: Genome, given: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Origins of the channels of every tensor, from those of some nodes; other makers stay as they are."""
    origins: dict[str, list[int]] = {}
    whole = cache(lambda width: list(range(width)))
    changed = set(given)
    for node in genome.nodes:
        if node.name in given:
            origins[node.name] = given[node.name]
            continue
        if is_maker(node) or changed.isdisjoint(node.inputs):
            origins[node.name] = whole(genome.shapes[node.name][0])
            continue
        changed.add(node.name)
        if node.op.routing == "joins":
            origins[node.name] = joined = []
            start = 0
            for name in node.inputs:
                end = start + genome.shapes[name][0]
                if name in changed:
                    joined.extend([c if c == NEW else start + c for c in origins[name]])
                else:
                    joined.extend(range(start, end))
                start = end
        elif isinstance(node.op, Select):
            origins[node.name] = [at for at, _ in selected_channels(node.op, origins[node.inputs[0]])]
        elif node.op.routing == "spreads":
            size = prod(genome.shapes[node.inputs[0]][1:])
            spread: list[int] = []
            for c in origins[node.inputs[0]]:
                spread.extend([NEW] * size if c == NEW else range(c * size, (c + 1) * size))
            origins[node.name] = spread
        else:
            origins[node.name] = origins[node.inputs[0]]
    return origins


def selected_channels(select: Select, read: Sequence[int]) -> list[tuple[int, int]]:
    """What a selection takes after a change of units.

    Args:
        select: The parent's operation.
        read: Origin of each channel that it reads in the child; negative for one from nowhere.

    Returns:
        For each channel of the child's output: the place in the parent's output that it comes from, and
        the channel of the child's input to take. Copies of a channel stand side by side, and so do channels
        from nowhere, behind the one that they stand behind in the input.
    """
    copies: dict[int, list[tuple[int, bool]]] = {}
    last = 0
    for channel, origin in enumerate(read):
        last = max(origin, 0) if not channel or origin >= 0 else last
        copies.setdefault(last, []).append((channel, origin < 0))
    return [
        (-1 if is_new else place, channel)
        for place, origin in enumerate(select.channels)
        for channel, is_new in copies.get(origin, ())
    ]


def _repeat_runs(members: Sequence[Member], copies: Mapping[Member, Sequence[int]]) -> list[int]:
    """Channel numbers, each run of one unit's channels as often as the unit has copies, old and new."""
    channels: list[int] = []
    for unit, run in groupby(range(len(members)), key=members.__getitem__):
        kept, new = copies.get(unit, (1, 0))
        if (kept, new) == (1, 0):  # most of them
            channels.extend(run)
        elif kept or new:
            block = list(run)
            channels.extend(block * kept + [NEW] * (new * len(block)))
    return channels
