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
from itertools import chain
from math import prod
from typing import NamedTuple

from evo_topo.genome import Genome, Node, once_per_genome
from evo_topo.ops import Conv, Input, Linear, Output, Select

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
    return isinstance(node.op, Conv | Linear | Input)


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
        self.layout: dict[str, Sequence[int]] = {}  # slots of every node's output, channel by channel
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

    def _route(self, node: Node) -> Sequence[int]:
        genome, layout = self.genome, self.layout
        shape, routing = genome.shapes[node.name], node.op.routing
        if routing == "makes":
            return self._make(node, shape[0])
        if routing == "ties":
            first, *others = [layout[name] for name in node.inputs]
            for other in others:
                if other is not first:
                    self.unite(first, other)
            return first
        if routing == "joins":
            return list(chain.from_iterable([layout[name] for name in node.inputs]))
        read = layout[node.inputs[0]]
        if isinstance(node.op, Select):
            return [read[channel] for channel in node.op.channels]
        if routing == "spreads":
            size = prod(genome.shapes[node.inputs[0]][1:])
            return [slot for slot in read for _ in range(size)] if size > 1 else read
        if isinstance(node.op, Output):
            self.fixed.update(read)
        return read

    def _make(self, node: Node, width: int) -> range:
        start = len(self.parent)
        slots = self.slots[node.name] = range(start, start + width)
        self.parent.extend(slots)
        self.maker_of.extend([node.name] * width)
        if isinstance(node.op, Input):
            self.fixed.update(slots)
        elif isinstance(node.op, Conv) and node.op.groups > 1:
            self._tie_blocks(self.layout[node.inputs[0]], slots, node.op.groups)
        return slots

    def _tie_blocks(self, read: Sequence[int], made: range, groups: int) -> None:
        reads, makes = len(read) // groups, len(made) // groups
        for k in range(groups):
            block = [*read[k * reads : (k + 1) * reads], *made[k * makes : (k + 1) * makes]]
            self.unite(block[:-1], block[1:])
        if reads > 1 or makes > 1:
            self.blocks.update(read, made)

    def table(self) -> UnitTable:
        roots = self.parent.copy()
        tied = [slot for slot, up in enumerate(self.parent) if slot != up]
        for slot in tied:  # in order, for no slot's parent comes after it
            roots[slot] = roots[roots[slot]]
        fixed = {roots[slot] for slot in self.fixed}
        home = self._connect_makers(roots, tied, fixed)
        of_slot: list[Member] = [None] * len(roots)
        widths = dict.fromkeys(home.values(), 0)
        for maker, slots in self.slots.items():
            group = home[maker]
            unit = widths[group]
            for slot in slots:
                if roots[slot] == slot and slot not in fixed:  # the root of a class is its first slot
                    of_slot[slot] = (group, unit)
                    unit += 1
            widths[group] = unit
        for slot in tied:
            of_slot[slot] = of_slot[roots[slot]]
        placed: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {}
        for maker, slots in self.slots.items():
            if width := widths[home[maker]]:
                held = of_slot[slots.start : slots.stop]
                if any(held):
                    placed.setdefault(home[maker], {})[maker] = _channels_by_unit(held, width)
        bound = self._misaligned(roots) | self._read_as_signs(roots)
        stuck: dict[str, set[int]] = {name: set() for name in placed}
        for root in bound:
            if (member := of_slot[root]) is not None:
                stuck[member[0]].add(member[1])
        selections = self._selections(of_slot, widths)
        groups = {
            name: UnitGroup(
                name,
                makers,
                tuple([unit not in stuck[name] for unit in range(widths[name])]),
                selections.get(name, {}),
            )
            for name, makers in placed.items()
        }
        shared: dict[int, list[Member]] = {}  # carried layouts are one object
        for layout in self.layout.values():
            if id(layout) not in shared:
                shared[id(layout)] = list(map(of_slot.__getitem__, layout))
        return UnitTable(groups, {name: shared[id(at)] for name, at in self.layout.items()})

    def _selections(
        self, of_slot: list[Member], widths: Mapping[str, int]
    ) -> dict[str, dict[str, tuple[int, ...]]]:
        """For each group and each node that selects channels of its units: how many, by unit."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for node in self.genome.nodes:
            if isinstance(node.op, Select):
                counts = Counter(m for slot in self.layout[node.name] if (m := of_slot[slot]) is not None)
                for group in {group: None for group, _ in counts}:
                    held = tuple([counts[group, unit] for unit in range(widths[group])])
                    found.setdefault(group, {})[node.name] = held
        return found

    def _connect_makers(self, roots: list[int], tied: list[int], fixed: set[int]) -> dict[str, str]:
        """The group name of each maker: the first maker that its free slots are connected with."""
        up = {maker: maker for maker in self.slots}

        def find(maker: str) -> str:
            while up[maker] != maker:
                up[maker] = maker = up[up[maker]]
            return maker

        for slot in tied:
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


def _channels_by_unit(held: Sequence[Member], width: int) -> tuple[tuple[int, ...], ...]:
    """For each of a group's units, the channels of one maker that it holds."""
    channels: list[list[int]] = [[] for _ in range(width)]
    for channel, member in enumerate(held):
        if member is not None:
            channels[member[1]].append(channel)
    return tuple([tuple(at) for at in channels])


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
    copies = {(group, unit): [0, 0] for group in unit_map for unit in range(table.groups[group].width)}
    for group, units in unit_map.items():
        last = NEW
        for unit in units:
            last = last if unit == NEW else unit
            copies[group, last][unit == NEW] += 1
    changed = {maker for group in unit_map for maker in table.groups[group].makers}
    given = {
        node.name: _repeat_runs(table.members[node.name], copies)
        if node.name in changed
        else list(range(genome.shapes[node.name][0]))
        for node in genome.nodes
        if is_maker(node)
    }
    return route_channels(genome, given)


def route_channels(genome: Genome, given: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Origins of the channels of every tensor, from those of some nodes, every maker among them."""
    origins: dict[str, list[int]] = {}
    for node in genome.nodes:
        if node.name in given:
            origins[node.name] = given[node.name]
        elif node.op.routing == "joins":
            origins[node.name] = joined = []
            start = 0
            for name in node.inputs:
                joined.extend([c if c == NEW else start + c for c in origins[name]])
                start += genome.shapes[name][0]
        elif isinstance(node.op, Select):
            origins[node.name] = [at for at, _ in selected_channels(node.op, origins[node.inputs[0]])]
        elif node.op.routing == "spreads":
            size = prod(genome.shapes[node.inputs[0]][1:])
            read = origins[node.inputs[0]]
            origins[node.name] = [c if c == NEW else c * size + i for c in read for i in range(size)]
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


def _repeat_runs(members: Sequence[Member], copies: Mapping[tuple[str, int], Sequence[int]]) -> list[int]:
    """Channel numbers, each run of one unit's channels as often as the unit has copies, old and new."""
    channels: list[int] = []
    start = 0
    for end in range(1, len(members) + 1):
        if end == len(members) or members[end] != members[start] or members[start] is None:
            unit = members[start]
            kept, new = (1, 0) if unit is None else copies.get(unit, (1, 0))
            channels.extend([*range(start, end)] * kept + [NEW] * (new * (end - start)))
            start = end
    return channels
