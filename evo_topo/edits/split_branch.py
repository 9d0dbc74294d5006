"""SplitBranch: add a path beside others, which starts without effect."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Self

import msgspec
from msgspec import Meta

from evo_topo.edits.base import Edit, EditError, RandomSource
from evo_topo.edits.layer_edits import layer_chain
from evo_topo.edits.surgery import (
    child_of,
    fitting,
    fresh_names,
    inserted,
    node_of,
)
from evo_topo.genome import Genome, Node
from evo_topo.ops import (
    MAX_EXTENT,
    Activation,
    Add,
    AnyOp,
    Conv,
    Input,
    Layer,
    Linear,
    Norm,
    Output,
    Shape,
)

Seed = Annotated[int, Meta(ge=0, lt=2**32)]


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
