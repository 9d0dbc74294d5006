"""PruneBranch: drop one input of a sum, product or concatenation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from msgspec import Meta

from evo_topo.channel_slots import is_maker
from evo_topo.channels import route_channels, selected_channels
from evo_topo.edits.base import Edit, EditError, applies
from evo_topo.edits.connection_edits import reading_other_channels
from evo_topo.edits.surgery import (
    child_of,
    node_of,
    reading,
    without_unread,
)
from evo_topo.genome import Genome, GenomeError, Node, infer_shape, once_per_genome
from evo_topo.ops import (
    Concat,
    Layer,
    Output,
    Select,
)
from evo_topo.units import mixes_units


class PruneBranch(Edit, frozen=True, tag="prune_branch"):
    """Drops one input of an Add, Multiply or Concat, and the nodes that nobody reads any more.

    A node left with one input is bypassed. The channels that a Concat loses are lost to its readers; where
    one of them selects no others, it is refused.

    Attributes:
        node: Name of the Add, Multiply or Concat.
        branch: Which of its inputs, from 0.
    """

    node: str
    branch: Annotated[int, Meta(ge=0)]

    def apply(self, genome: Genome) -> Genome:
        node = self._checked(genome)
        left = self._left(node)
        origins = self.channel_map(genome)  # refuses where the channels of a Concat cannot go
        if len(left) > 1:
            thinner = Node(node.name, node.op, left)
            nodes = [thinner if old is node else old for old in genome.nodes]
        else:
            nodes = [reading(old, {node.name: left[0]}) for old in genome.nodes if old is not node]
        if origins:
            nodes = [_reading_fewer(genome, node, origins) for node in nodes]
        child = child_of(without_unread(nodes), self)
        shape = child.shapes[self._after(node)]
        if not isinstance(node.op, Concat) and shape != genome.shapes[node.name]:
            raise EditError(f"without input {self.branch} {self.node!r} would make {shape}")
        return child

    def channel_map(self, genome: Genome) -> dict[str, list[int]]:
        node = self._checked(genome)
        if not isinstance(node.op, Concat):
            return {}
        widths = [genome.shapes[name][0] for name in node.inputs]
        start = sum(widths[: self.branch])
        kept = [c for c in range(sum(widths)) if not start <= c < start + widths[self.branch]]
        origins = route_channels(genome, {node.name: kept})
        for reader in genome.nodes:
            read = [origins[name] for name in reader.inputs]
            whole = all(len(o) == genome.shapes[name][0] for o, name in zip(read, reader.inputs, strict=True))
            is_tied = reader.op.routing == "ties" and any(other != read[0] for other in read[1:])
            is_stuck = isinstance(reader.op, Output) or (is_maker(reader) and not mixes_units(reader))
            if is_tied or (is_stuck and not whole):
                raise EditError(f"the channels that {self.node!r} would lose are tied in {reader.name!r}")
        return origins

    def is_legal(self, genome: Genome) -> bool:
        try:
            return self._is_legal_nearby(genome)
        except (EditError, GenomeError):
            return False

    def _is_legal_nearby(self, genome: Genome) -> bool:
        """Whether it applies; the child is made only where a Concat loses channels that are tied."""
        node = self._checked(genome)
        if not _keeps_a_layer(genome):
            return applies(self, genome)
        if isinstance(node.op, Concat):
            return node.name not in _of_fixed_width(genome) or applies(self, genome)
        left = self._left(node)
        if len(left) > 1:
            after = infer_shape(Node(node.name, node.op, left), genome.shapes)
        else:
            after = genome.shapes[left[0]]
        return after == genome.shapes[node.name]

    def joint(self, genome: Genome) -> tuple[str, str] | None:
        self.apply(genome)
        node = genome.by_name[self.node]
        return None if isinstance(node.op, Concat) else (node.name, self._after(node))

    def _checked(self, genome: Genome) -> Node:
        node = node_of(genome, self.node)
        if node.op.routing not in ("ties", "joins"):
            raise EditError(f"{self.node!r} is no Add, Multiply or Concat: it has no branches")
        if not 0 <= self.branch < len(node.inputs):
            raise EditError(f"{self.node!r} has inputs 0 to {len(node.inputs) - 1}, not {self.branch}")
        return node

    def _left(self, node: Node) -> tuple[str, ...]:
        return node.inputs[: self.branch] + node.inputs[self.branch + 1 :]

    def _after(self, node: Node) -> str:
        """The child's node that takes the place of the parent's."""
        left = self._left(node)
        return node.name if len(left) > 1 else left[0]

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        for node in genome.nodes:
            if node.op.routing in ("ties", "joins"):
                for branch, name in enumerate(node.inputs):
                    if node.op.routing == "joins" or name not in node.inputs[:branch]:
                        yield cls(node.name, branch)

    def describe(self) -> str:
        return f"prune input {self.branch} of {self.node}"


def _reading_fewer(genome: Genome, node: Node, origins: dict[str, list[int]]) -> Node:
    """A node of the child that reads the channels which are left of what it read."""
    if not isinstance(node.op, Layer | Select):
        return node
    source = genome.by_name[node.name].inputs[0]
    if isinstance(node.op, Select):
        chosen = tuple([channel for _, channel in selected_channels(node.op, origins[source])])
        return Node(node.name, Select(chosen), node.inputs)
    op = reading_other_channels(node.op, node.op, genome.shapes[source][0], len(origins[source]))
    return Node(node.name, op, node.inputs)


@once_per_genome
def _of_fixed_width(genome: Genome) -> set[str]:
    """Nodes whose value cannot lose any channels: it is tied, or does not end in layers that mix units."""
    fixed: set[str] = set()
    for node in reversed(genome.nodes):  # readers come behind what they read
        if not mixes_units(node) and (node.name in fixed or not _passes_channels(node)):
            fixed.update(node.inputs)
    return fixed


def _passes_channels(node: Node) -> bool:
    """Whether a node reads any number of channels, and makes nothing but these."""
    return node.op.routing not in ("makes", "ties", "selects") and not isinstance(node.op, Output)


@once_per_genome
def _keeps_a_layer(genome: Genome) -> bool:
    """Whether one layer makes the class scores: it is there whatever branch goes."""
    node = next(node for node in genome.nodes if isinstance(node.op, Output))
    while len(node.inputs) == 1 and not isinstance(node.op, Layer):
        node = genome.by_name[node.inputs[0]]
    return isinstance(node.op, Layer)
