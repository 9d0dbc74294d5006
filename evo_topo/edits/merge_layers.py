"""Two layers in turn become one, without what lies between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

from msgspec.structs import replace

from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.surgery import (
    check_plain,
    child_of,
    fitting,
    fresh_names,
    layer_of,
    substituted,
    without_unread,
)
from evo_topo.genome import Genome, Node
from evo_topo.ops import MAX_EXTENT, Activation, Conv, Dropout, Flatten, Layer, Norm

_BETWEEN = Norm | Activation | Dropout


class MergeLayers(Edit, frozen=True, tag="merge_layers"):
    """Merges two layers in turn into one of the larger window, and drops the activation between them.

    Depth goes where widths differ, too (Layer Folding, Ben Dror et al. 2021; DepthShrinker, Fu et al. 2022).
    The child's layer is their product, a Norm between them taken in evaluation mode, with the taps beyond its
    window dropped; its stride is the product of theirs. What the first one adds is its bias, but where a Norm
    behind takes every constant out. A linear layer behind a `Flatten` then reads all
    places of what the convolution read. Grouped, dilated, sparse and binary layers are refused, and so are
    even windows and whatever saves no operations.

    Attributes:
        first: Name of the Conv or Linear.
        second: Name of the one that alone reads what the first makes, through Norm, Activation and Dropout,
            and a Flatten.
    """

    first: str
    second: str

    def apply(self, genome: Genome) -> Genome:
        nodes = substituted(genome, self.second, self.merged(genome))
        return child_of(without_unread(nodes), self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.second, self.merged(genome)[-1].name

    def is_legal(self, genome: Genome) -> bool:
        try:
            return bool(self.merged(genome))
        except EditError:
            return False

    def merged(self, genome: Genome) -> list[Node]:
        """The child's layer in the place of both, behind a Flatten where it is linear and they are not.

        Raises:
            EditError: When the two cannot be merged.
        """
        link = link_between(genome, self.first, self.second)
        first, second = link.first.op, link.second.op
        assert isinstance(second, Layer)
        has_bias = second.bias or _leaves_constant(genome, link)
        names = fresh_names(genome, "conv", "linear", "flatten")
        (source,) = link.first.inputs
        nodes: list[Node] = []
        if isinstance(second, Conv):
            assert isinstance(first, Conv)  # nothing between makes a map of features
            nodes = [Node(names["conv"], _merged_conv(self, first, second, has_bias), (source,))]
        else:
            if isinstance(first, Conv):
                nodes = [Node(names["flatten"], Flatten(), (source,))]
                source = names["flatten"]
            nodes.append(Node(names["linear"], replace(second, bias=has_bias), (source,)))
        found = fitting(genome, self.second, nodes)
        before = sum(n.op.num_macs(genome.input_shapes(n), genome.shapes[n.name]) for n in link[:2])
        layer = nodes[-1]
        if layer.op.num_macs((found[layer.inputs[0]],), found[layer.name]) >= before:
            raise EditError(f"one layer for {self.first!r} and {self.second!r} would save nothing")
        return nodes

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        for node in genome.nodes:
            if isinstance(node.op, Layer):
                at = node
                while len(genome.readers[at.name]) == 1:
                    at = genome.by_name[genome.readers[at.name][0]]
                    if isinstance(at.op, Layer):
                        yield cls(node.name, at.name)
                    if not isinstance(at.op, _BETWEEN | Flatten):
                        break

    def describe(self) -> str:
        return f"merge {self.first} and {self.second}"


class Link(NamedTuple):
    """Two layers in turn.

    Attributes:
        first: The one.
        second: The other.
        between: What lies between them, in order.
    """

    first: Node
    second: Node
    between: list[Node]


def link_between(genome: Genome, first: str, second: str) -> Link:
    """Two layers that can be merged, as far as that does not depend on their windows.

    Raises:
        EditError: When something else reads what lies between, or a layer is of a kind that is refused.
    """
    start, end = (layer_of(genome, name)[0] for name in (first, second))
    for node in (start, end):
        check_plain(node)
        if isinstance(node.op, Conv) and (
            node.op.groups > 1 or max(node.op.dilation) > 1 or not all(k % 2 for k in node.op.kernel)
        ):
            raise EditError(f"{node.name!r} is grouped, dilated or of even window: it cannot be merged")
    between: list[Node] = []
    at, is_flat = start, False
    while True:
        readers = genome.readers[at.name]
        if readers == (second,):
            return Link(start, end, between)
        if len(readers) != 1:
            raise EditError(f"{second!r} is not the only layer that reads what {first!r} makes")
        at = genome.by_name[readers[0]]
        if is_flat or not isinstance(at.op, _BETWEEN | Flatten):
            raise EditError(f"{at.name!r} lies between {first!r} and {second!r}: they cannot be merged")
        is_flat = isinstance(at.op, Flatten)
        between.append(at)


def _leaves_constant(genome: Genome, link: Link) -> bool:
    """Whether the first of two layers adds a constant to what the second makes, and no Norm takes it out."""
    readers = [genome.by_name[name] for name in genome.readers[link.second.name]]
    op = link.first.op
    assert isinstance(op, Layer)
    is_shifted = op.bias or any(isinstance(node.op, Norm) for node in link.between)
    return is_shifted and not all(isinstance(node.op, Norm) for node in readers)


def _merged_conv(edit: MergeLayers, first: Conv, second: Conv, has_bias: bool) -> Conv:
    """A convolution of the larger window whose middle lies where the middle of their product does."""
    kernel, stride, padding = [], [], []
    settings = [setting for op in (first, second) for setting in (op.kernel, op.stride, op.padding)]
    for k1, s1, p1, k2, s2, p2 in zip(*settings, strict=True):
        middle = k1 // 2 - p1 + (k2 // 2 - p2) * s1  # of the first window, in what is read
        kernel.append(max(k1, k2))
        stride.append(s1 * s2)
        padding.append(kernel[-1] // 2 - middle)
    if min(padding) < 0 or max(*padding, *stride) > MAX_EXTENT:
        raise EditError(
            f"one layer for {edit.first!r} and {edit.second!r} needs a padding of {padding} and a stride of "
            f"{stride}: from 0 to {MAX_EXTENT} are allowed"
        )
    return Conv(second.out_channels, tuple(kernel), tuple(stride), tuple(padding), bias=has_bias)
