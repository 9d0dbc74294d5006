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
from math import prod
from typing import NamedTuple, TypeVar

from evo_topo.genome import Genome, Node, once_per_genome
from evo_topo.ops import Conv, Input, Linear, Output, Select

T = TypeVar("T")
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


@once_per_genome
def unit_table(genome: Genome) -> UnitTable:
    """Finds every unit of a genome, in one pass."""
    return _Finder(genome).table()


def is_maker(node: Node) -> bool:
    """Whether a node makes units of its own (Input included)."""
    return node.op.routing == "makes"


def mixes_units(node: Node) -> bool:
    """Whether a node reads all units into each of its own: where a masked unit is felt."""
    return isinstance(node.op, Linear) or (isinstance(node.op, Conv) and node.op.groups == 1)


class _Finder:
    """Union-find over channel slots (Tarjan 1975), fed node by node."""

    def __init__(self, genome: Genome) -> None:
        self.genome = genome
        self.parent: list[int] = []
        self.maker_of: list[str] = []  # by slot
        self.slots: dict[str, range] = {}  # by maker
        self.layout: dict[str, list[int]] = {}  # slots of every node's output, channel by channel
        self.tied: list[int] = []  # slots that are not the root of their class
        self.fixed: set[int] = set()
        self.blocks: set[int] = set()  # slots that a grouped convolution holds in blocks
        for node in genome.nodes:
            self.layout[node.name] = self._route(node)

    def find(self, slot: int) -> int:
        parent = self.parent
        while parent[slot] != slot:
            parent[slot] = slot = parent[parent[slot]]
        return slot

    def unite(self, first: Sequence[int], second: Sequence[int]) -> None:
        parent, find = self.parent, self.find
        for a, b in zip(first, second, strict=True):
            a, b = find(a), find(b)
            if a != b:
                parent[max(a, b)] = min(a, b)
                self.tied.append(max(a, b))

    def _route(self, node: Node) -> list[int]:
        layout = self.layout
        if is_maker(node):
            return self._make(node, self.genome.shapes[node.name][0])
        if node.op.routing == "ties":
            first, *others = [layout[name] for name in node.inputs]
            for other in others:
                if other is not first:
                    self.unite(first, other)
        if isinstance(node.op, Output):
            self.fixed.update(layout[node.inputs[0]])
        return _handed_on(self.genome, node, layout)

    def _make(self, node: Node, width: int) -> list[int]:
        start = len(self.parent)
        slots = self.slots[node.name] = range(start, start + width)
        self.parent.extend(slots)
        self.maker_of.extend([node.name] * width)
        if isinstance(node.op, Input):
            self.fixed.update(slots)
        elif isinstance(node.op, Conv) and node.op.groups > 1:
            self._tie_blocks(self.layout[node.inputs[0]], slots, node.op.groups)
        return list(slots)

    def _tie_blocks(self, read: list[int], made: range, groups: int) -> None:
        reads, makes = len(read) // groups, len(made) // groups
        for k in range(groups):
            block = [*read[k * reads : (k + 1) * reads], *made[k * makes : (k + 1) * makes]]
            self.unite(block[:-1], block[1:])
        if reads > 1 or makes > 1:
            self.blocks.update(read, made)

    def table(self) -> UnitTable:
        roots = self.parent.copy()
        for slot in sorted(self.tied):  # in order, for no slot's parent comes after it
            roots[slot] = roots[roots[slot]]
        fixed = {roots[slot] for slot in self.fixed}
        home = self._connect_makers(roots, fixed)
        of_slot, units = self._number(roots, fixed, home)
        members: dict[str, list[Member]] = {}
        placed: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {}
        for node in self.genome.nodes:
            if not is_maker(node):
                members[node.name] = _handed_on(self.genome, node, members)
                continue
            slots, group = self.slots[node.name], home[node.name]
            members[node.name] = held = of_slot[slots.start : slots.stop]
            if any(held):
                placed.setdefault(group, {})[node.name] = _channels_by_unit(held, units[group])
        splittable = {name: [True] * len(units[name]) for name in placed}
        for root in self._misaligned(roots) | self._read_as_signs(roots):
            if (member := of_slot[root]) is not None:
                splittable[member[0]][member[1]] = False
        selections = self._selections(members, units)
        groups = {
            name: UnitGroup(name, makers, tuple(splittable[name]), selections.get(name, {}))
            for name, makers in placed.items()
        }
        return UnitTable(groups, members)

    def _number(
        self, roots: list[int], fixed: set[int], home: Mapping[str, str]
    ) -> tuple[list[Member], dict[str, list[Member]]]:
        """Member of every slot, and all members of every group, in order."""
        of_slot: list[Member] = []
        units: dict[str, list[Member]] = {group: [] for group in home.values()}
        special = fixed.union(self.tied)
        for maker, slots in self.slots.items():
            group, known = home[maker], units[home[maker]]
            if special.isdisjoint(slots):
                made: list[Member] = list(zip(repeat(group), range(len(known), len(known) + len(slots))))
                known += made
                of_slot += made
                continue
            for slot in slots:
                member: Member = None
                if roots[slot] != slot:
                    member = of_slot[roots[slot]]  # the root of a class is its first slot
                elif slot not in fixed:
                    member = (group, len(known))
                    known.append(member)
                of_slot.append(member)
        return of_slot, units

    def _selections(
        self, members: Mapping[str, list[Member]], units: Mapping[str, list[Member]]
    ) -> dict[str, dict[str, tuple[int, ...]]]:
        """For each group and each node that selects channels of its units: how many, by unit."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for node in self.genome.nodes:
            if isinstance(node.op, Select):
                counts = Counter(members[node.name])
                for group in dict.fromkeys(member[0] for member in counts if member is not None):
                    held = tuple([counts[member] for member in units[group]])
                    found.setdefault(group, {})[node.name] = held
        return found

    def _connect_makers(self, roots: list[int], fixed: set[int]) -> dict[str, str]:
        """The group name of each maker: the first maker that its free slots are connected with."""
        up = {maker: maker for maker in self.slots}

        def find(maker: str) -> str:
            while up[maker] != maker:
                up[maker] = maker = up[up[maker]]
            return maker

        for slot in sorted(self.tied):
            root = roots[slot]
            if root not in fixed:
                a, b = find(self.maker_of[slot]), find(self.maker_of[root])
                if a != b:
                    first, second = sorted((a, b), key=lambda maker: self.slots[maker].start)
                    up[second] = first
        return {maker: find(maker) for maker in up}

    def _read_as_signs(self, roots: list[int]) -> set[int]:
        """Units that a binary layer mixes: of a weight of +-1 there are no shares."""
        return {
            roots[slot]
            for node in self.genome.nodes
            if mixes_units(node) and getattr(node.op, "binary", False)
            for slot in self.layout[node.inputs[0]]
        }

    def _misaligned(self, roots: list[int]) -> set[int]:
        """Units whose repetition would misalign channels that are tied or read in blocks.

        A unit that holds several channels of one maker, or of one block, is repeated block by block;
        that stays aligned only while each tensor holds the block as one unbroken run, and no selection
        takes it apart.
        """
        stuck: set[int] = set()
        several = {roots[slot] for slot in self.blocks}
        for slots in self.slots.values():
            held = roots[slots.start : slots.stop]
            if len(set(held)) == len(held):
                continue
            seen: set[int] = set()
            for before, root in zip([-1, *held], held, strict=False):
                if root in seen:
                    several.add(root)
                    if root != before:
                        stuck.add(root)
                seen.add(root)
        if several:
            for node in self.genome.nodes:
                if node.op.routing == "joins":
                    pieces: set[int] = set()
                    for name in node.inputs:
                        piece = {roots[slot] for slot in self.layout[name]} & several
                        stuck |= piece & pieces
                        pieces |= piece
                elif isinstance(node.op, Select):
                    stuck |= {roots[slot] for slot in self.layout[node.name]} & several
        return stuck


def _handed_on(genome: Genome, node: Node, layout: Mapping[str, list[T]]) -> list[T]:
    """What is known of each channel that a node hands on, from the same of all that it reads.

    Inputs that a node ties are the same to it; a node that makes units of its own is out of place here.
    """
    read = layout[node.inputs[0]]
    if node.op.routing == "joins":
        joined: list[T] = []
        for name in node.inputs:
            joined += layout[name]
        return joined
    if isinstance(node.op, Select):
        return [read[channel] for channel in node.op.channels]
    if node.op.routing == "spreads":
        size = prod(genome.shapes[node.inputs[0]][1:])
        return [channel for channel in read for _ in range(size)] if size > 1 else read
    return read


def _channels_by_unit(held: Sequence[Member], units: Sequence[Member]) -> tuple[tuple[int, ...], ...]:
    """For each of a group's units, the channels of one maker that it holds."""
    if held == units:  # one channel each, in order
        return tuple(zip(range(len(held))))
    channels: list[list[int]] = [[] for _ in units]
    for channel, member in enumerate(held):
        if member is not None:
            channels[member[1]].append(channel)
    return tuple([tuple(at) for at in channels])
