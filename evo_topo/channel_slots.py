"""Channel slots: every channel that an operation makes, and which of them are tied to each other.

A union-find structure (Tarjan 1975), fed node by node in one pass; `units` makes unit groups of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeVar

from evo_topo.genome import Genome, Node
from evo_topo.ops import Conv, Input, Output, Select

T = TypeVar("T")


def is_maker(node: Node) -> bool:
    """Whether a node makes units of its own (Input included)."""
    return node.op.routing == "makes"


class ChannelSlots:
    """All channel slots of a genome, and the classes that tie them.

    Attributes:
        of_maker: Slots of each node that makes units.
        layout: Slots of every node's output, channel by channel.
        tied: Slots that are not the root of their class, in order.
        roots: For each slot, the root of its class, which is its first slot.
        fixed: Roots of the classes that hold input units or class scores.
    """

    def __init__(self, genome: Genome) -> None:
        self.genome = genome
        self.of_maker: dict[str, range] = {}
        self.layout: dict[str, list[int]] = {}
        self.tied: list[int] = []
        self._parent: list[int] = []
        self._maker_of: list[str] = []  # by slot
        self._blocks: set[int] = set()  # slots that a grouped convolution holds in blocks
        fixed: set[int] = set()
        for node in genome.nodes:
            self.layout[node.name] = self._route(node)
            if isinstance(node.op, Input | Output):
                fixed.update(self.layout[node.name])
        self.tied.sort()
        self.roots = self._parent.copy()
        for slot in self.tied:  # in order, for no slot's parent comes after it
            self.roots[slot] = self.roots[self.roots[slot]]
        self.fixed = {self.roots[slot] for slot in fixed}

    def _find(self, slot: int) -> int:
        parent = self._parent
        while parent[slot] != slot:
            parent[slot] = slot = parent[parent[slot]]
        return slot

    def _unite(self, first: Sequence[int], second: Sequence[int]) -> None:
        parent, find = self._parent, self._find
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
                    self._unite(first, other)
        return handed_on(self.genome, node, layout)

    def _make(self, node: Node, width: int) -> list[int]:
        start = len(self._parent)
        slots = self.of_maker[node.name] = range(start, start + width)
        self._parent.extend(slots)
        self._maker_of.extend([node.name] * width)
        if isinstance(node.op, Conv) and node.op.groups > 1:
            self._tie_blocks(self.layout[node.inputs[0]], slots, node.op.groups)
        return list(slots)

    def _tie_blocks(self, read: list[int], made: range, groups: int) -> None:
        reads, makes = len(read) // groups, len(made) // groups
        for k in range(groups):
            block = [*read[k * reads : (k + 1) * reads], *made[k * makes : (k + 1) * makes]]
            self._unite(block[:-1], block[1:])
        if reads > 1 or makes > 1:
            self._blocks.update(read, made)

    def homes(self) -> dict[str, str]:
        """The group name of each maker: the first maker that its free slots are connected with."""
        up = {maker: maker for maker in self.of_maker}

        def find(maker: str) -> str:
            while up[maker] != maker:
                up[maker] = maker = up[up[maker]]
            return maker

        for slot in self.tied:
            root = self.roots[slot]
            if root not in self.fixed:
                a, b = find(self._maker_of[slot]), find(self._maker_of[root])
                if a != b:
                    first, second = sorted((a, b), key=lambda maker: self.of_maker[maker].start)
                    up[second] = first
        return {maker: find(maker) for maker in up}

    def misaligned(self) -> set[int]:
        """Roots of the units whose repetition would misalign channels that are tied or read in blocks.

        A unit that holds several channels of one maker, or of one block, is repeated block by block;
        that stays aligned only while each tensor holds the block as one unbroken run, and no selection
        takes it apart.
        """
        stuck: set[int] = set()
        several = {self.roots[slot] for slot in self._blocks}
        for slots in self.of_maker.values():
            held = self.roots[slots.start : slots.stop]
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
                        piece = {self.roots[slot] for slot in self.layout[name]} & several
                        stuck |= piece & pieces
                        pieces |= piece
                elif isinstance(node.op, Select):
                    stuck |= {self.roots[slot] for slot in self.layout[node.name]} & several
        return stuck


def handed_on(genome: Genome, node: Node, layout: Mapping[str, list[T]]) -> list[T]:
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
