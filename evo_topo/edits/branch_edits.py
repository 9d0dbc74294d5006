"""Branch edits: drop one input of a sum, product or concatenation, or add a path beside others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Self

import msgspec
from msgspec import Meta

from evo_topo.channels import route_channels
from evo_topo.edits.base import Edit, EditError, RandomSource, applies
from evo_topo.edits.connection_edits import reading_other_channels
from evo_topo.edits.layer_edits import layer_chain
from evo_topo.edits.surgery import (
    child_of,
    fitting,
    fresh_names,
    inserted,
    node_of,
    reading,
    without_unread,
)
from evo_topo.genome import Genome, GenomeError, Node, infer_shape, once_per_genome
from evo_topo.ops import (
    MAX_EXTENT,
    Activation,
    Add,
    AnyOp,
    Concat,
    Conv,
    Input,
    Layer,
    Linear,
    Norm,
    Output,
    Shape,
)
from evo_topo.units import is_maker, mixes_units

Seed = Annotated[int, Meta(ge=0, lt=2**32)]


class PruneBranch(Edit, frozen=True, tag="prune_branch"):
    """Drops one input of an Add, Multiply or Concat, and the nodes that nobody reads any more.

    A node left with one input is bypassed. The channels that a Concat loses are lost to its readers.

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


class SplitBranch(Edit, frozen=True, tag="split_branch"):
    """Adds to a tensor a path from an earlier one that starts without effect.

    The path is a convolution (a linear layer for features), normalised where the tensor is; its last
    parameters start at zero. A skip connection, of equal shapes, has only a scale per channel, in a Norm.

    Attributes:
        source: Where the path begins.
        target: The node to whose value it is added; all who read that read the sum.
        kernel: Odd extent of the convolution; 0 for a skip connection.
        seed: Seed of those weights that do not start at zero.
    """

    source: str
    target: str
    kernel: Annotated[int, Meta(ge=0, le=31)] = 1
    seed: Seed = 0
    is_function_preserving: ClassVar[bool] = True

    def apply(self, genome: Genome) -> Genome:
        return child_of(inserted(genome, self.target, self._checked(genome)), self)

    def is_legal(self, genome: Genome) -> bool:
        try:
            return bool(self._checked(genome))
        except EditError:
            return False

    def _checked(self, genome: Genome) -> list[Node]:
        """The new nodes, after checking that they fit."""
        target = node_of(genome, self.target)
        node_of(genome, self.source)
        if genome.positions[self.source] >= genome.positions[self.target]:
            raise EditError(f"{self.source!r} is not listed before {self.target!r}")
        if isinstance(target.op, Output):
            raise EditError(f"{self.target!r} is the output: nothing reads it")
        if self.kernel and self.kernel not in range(1, 32, 2):
            raise EditError(f"kernel must be 0 or odd, up to 31, got {self.kernel}")
        added = self._new_nodes(genome)
        made, expected = fitting(genome, self.target, added), genome.shapes[self.target]
        if made[added[-2].name] != expected:  # a sum would repeat it over the map
            raise EditError(
                f"the path from {self.source!r} makes {made[added[-2].name]}, but {self.target!r} {expected}"
            )
        return added

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.target, self._new_nodes(genome)[-1].name

    def _new_nodes(self, genome: Genome) -> list[Node]:
        """The path and the sum; what a new node is named says what it is."""
        names = fresh_names(genome, "conv", "linear", "norm", "add")
        target = genome.by_name[self.target]
        near = (target, *[genome.by_name[name] for name in target.inputs])
        norm = next((node.op for node in near if isinstance(node.op, Norm)), None)
        nodes: list[Node] = []
        last = self.source
        if self.kernel:
            layer = self._layer(genome, bias=norm is None)
            last = names["linear" if isinstance(layer, Linear) else "conv"]
            nodes.append(Node(last, layer, (self.source,)))
        if norm or not self.kernel:
            nodes.append(Node(names["norm"], norm or Norm(), (last,)))
            last = names["norm"]
        return [*nodes, Node(names["add"], Add(), (self.target, last))]

    def _layer(self, genome: Genome, bias: bool) -> AnyOp:
        """A layer from the source's shape to the target's, as far as a stride can do it."""
        _, *sizes = genome.shapes[self.source]
        width, *wanted = genome.shapes[self.target]
        if not sizes or len(sizes) != len(wanted):
            return Linear(width, bias)
        stride = tuple([-(-n // m) for n, m in zip(sizes, wanted, strict=True)])
        kernel, padding = (self.kernel,) * len(sizes), (self.kernel // 2,) * len(sizes)
        if max(stride) > MAX_EXTENT:
            raise EditError(f"a stride of {stride} is needed; at most {MAX_EXTENT} is allowed")
        return Conv(width, kernel, stride, padding, bias=bias)

    def varied(self, genome: Genome, rng: RandomSource) -> Self:
        return msgspec.structs.replace(self, seed=int(rng.random() * 2**32))

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        """Around each layer, to its end: the nearest skip connection, and convolutions where they add to it.

        Beside a layer without activation a convolution would only repeat what the layer can do.
        """
        last: dict[Shape, str] = {}  # the nearest node of each shape, not the Input
        for before, node in pairwise(genome.nodes):
            if not isinstance(before.op, Input):
                last[genome.shapes[before.name]] = before.name
            if not isinstance(node.op, Layer):
                continue
            source, end = node.inputs[0], layer_chain(genome, node.name)[-1]
            if any(isinstance(genome.by_name[name].op, Output) for name in genome.readers[end]):
                continue
            earlier = last.get(genome.shapes[end])
            if earlier is not None:
                yield cls(earlier, end, 0)
            if isinstance(genome.by_name[end].op, Activation):
                yield cls(source, end, 1)
                if max(genome.shapes[source][1:], default=1) > 1:
                    yield cls(source, end, 3)

    def describe(self) -> str:
        path = f"{self.kernel}-tap path" if self.kernel else "skip"
        return f"add {path} from {self.source} to {self.target}"


def _reading_fewer(genome: Genome, node: Node, origins: dict[str, list[int]]) -> Node:
    """A node of the child with as many connections as what it reads has room for."""
    if not isinstance(node.op, Layer):
        return node
    source = genome.by_name[node.name].inputs[0]
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
