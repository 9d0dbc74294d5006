"""Units and the groups that tie them.

A *unit* is a set of channels that can only live or die together. Every channel that an operation
makes is a slot; slots are united where an Add or Multiply combines them, and where a grouped
convolution reads some and makes others (its k-th block of inputs with its k-th block of outputs, which
covers depthwise ones). The classes that result are the units. Units whose makers are connected form a
*unit group*, named after its first maker. Input units and class scores are fixed: no unit holds them.

A *unit map* says, per group, from which parent unit each child unit comes: prune omits, split repeats,
and a unit that comes from nowhere is `NEW`; it takes its place as one more copy of the unit before it would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

from evo_topo.channel_slots import ChannelSlots, handed_on, is_maker
from evo_topo.genome import Genome, Node, once_per_genome
from evo_topo.ops import Conv, Linear, Select

UnitMap = Mapping[str, Sequence[int]]
NEW = -1
"""In maps of units and channels: comes from nowhere."""
Member = tuple[str, int] | None
"""The group and unit that a channel belongs to; None where it is fixed."""


class UnitGroup(NamedTuple):
    """Units tied together.

    Attributes:
        name: Name of the first node that makes them.
        makers: For each node that makes them: for each unit, its output channels there.
        splittable: For each unit, whether repeating it keeps all tied channels aligned, and all that
            read it can share their weights among the copies.
        selections: For each node that selects some of their channels: for each unit, how many. Like a
            maker, it must keep one.
    """

    name: str
    makers: dict[str, tuple[tuple[int, ...], ...]]
    splittable: tuple[bool, ...]
    selections: dict[str, tuple[int, ...]]

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.splittable)


class UnitTable(NamedTuple):
    """All units of a genome.

    Attributes:
        groups: Free unit groups by name, in node order.
        members: For each node's output: for each channel, its (group, unit), or None where fixed.
            Channels of a flattened tensor count one by one.
    """

    groups: dict[str, UnitGroup]
    members: dict[str, list[Member]]


def mixes_units(node: Node) -> bool:
    """Whether a node reads all units into each of its own: where a masked unit is felt."""
    return isinstance(node.op, Linear) or (isinstance(node.op, Conv) and node.op.groups == 1)


@once_per_genome
def unit_table(genome: Genome) -> UnitTable:
    """Finds every unit of a genome, in one pass."""
    slots = ChannelSlots(genome)
    home = slots.homes()
    of_slot, units = _number(slots, home)
    members: dict[str, list[Member]] = {}
    placed: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {}
    for node in genome.nodes:
        if not is_maker(node):
            members[node.name] = handed_on(genome, node, members)
            continue
        made, group = slots.of_maker[node.name], home[node.name]
        members[node.name] = held = of_slot[made.start : made.stop]
        if any(held):
            placed.setdefault(group, {})[node.name] = _channels_by_unit(held, units[group])
    splittable = {name: [True] * len(units[name]) for name in placed}
    for root in slots.misaligned() | _read_as_signs(genome, slots):
        if (member := of_slot[root]) is not None:
            splittable[member[0]][member[1]] = False
    selections = _selections(genome, members, units)
    groups = {
        name: UnitGroup(name, makers, tuple(splittable[name]), selections.get(name, {}))
        for name, makers in placed.items()
    }
    return UnitTable(groups, members)


def _number(slots: ChannelSlots, home: Mapping[str, str]) -> tuple[list[Member], dict[str, list[Member]]]:
    """Member of every slot, and all members of every group, in order."""
    of_slot: list[Member] = []
    units: dict[str, list[Member]] = {group: [] for group in home.values()}
    special = slots.fixed.union(slots.tied)
    for maker, made in slots.of_maker.items():
        group, known = home[maker], units[home[maker]]
        if special.isdisjoint(made):
            new: list[Member] = list(zip(repeat(group), range(len(known), len(known) + len(made))))
            known += new
            of_slot += new
            continue
        for slot in made:
            member: Member = None
            if slots.roots[slot] != slot:
                member = of_slot[slots.roots[slot]]  # the root of a class is its first slot
            elif slot not in slots.fixed:
                member = (group, len(known))
                known.append(member)
            of_slot.append(member)
    return of_slot, units


def _selections(
    genome: Genome, members: Mapping[str, list[Member]], units: Mapping[str, list[Member]]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """For each group and each node that selects channels of its units: how many, by unit."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for node in genome.nodes:
        if isinstance(node.op, Select):
            counts = Counter(members[node.name])
            for group in dict.fromkeys(member[0] for member in counts if member is not None):
                held = tuple([counts[member] for member in units[group]])
                found.setdefault(group, {})[node.name] = held
    return found


def _read_as_signs(genome: Genome, slots: ChannelSlots) -> set[int]:
    """Roots of the units that a binary layer mixes: of a weight of +-1 there are no shares."""
    return {
        slots.roots[slot]
        for node in genome.nodes
        if mixes_units(node) and getattr(node.op, "binary", False)
        for slot in slots.layout[node.inputs[0]]
    }


def _channels_by_unit(held: Sequence[Member], units: Sequence[Member]) -> tuple[tuple[int, ...], ...]:
    """For each of a group's units, the channels of one maker that it holds."""
    if held == units:  # one channel each, in order
        return tuple(zip(range(len(held))))
    channels: list[list[int]] = [[] for _ in units]
    for channel, member in enumerate(held):
        if member is not None:
            channels[member[1]].append(channel)
    return tuple([tuple(at) for at in channels])
