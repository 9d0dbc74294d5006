"""Operator edits that put linear layers together."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar, Self

import msgspec

from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.surgery import check_plain, child_of, fitting, fresh_names, node_of, reading
from evo_topo.genome import Genome, Node
from evo_topo.ops import MAX_EXTENT, Add, Conv, Layer, Linear, Norm


class Fuse(Edit, frozen=True, tag="fuse"):
    """Puts two linear operations together where one layer computes exactly the same.

    - A Norm, or a 1x1 convolution or Linear, that alone reads a layer; a window that alone reads a 1x1
      without bias, or without padding of its own.
    - Two convolutions that read the same and that one Add alone reads.

    The Norm is folded with its running statistics, so the function is kept in evaluation mode.
    Sparse and binary layers are refused.

    Attributes:
        first: Name of the Conv or Linear.
        second: Name of the other layer or the Norm.
    """

    first: str
    second: str
    is_function_preserving: ClassVar[bool] = True

    def apply(self, genome: Genome) -> Genome:
        fused = self.fused(genome)
        gone = {self.first, self.second}
        nodes: list[Node] = []
        for node in genome.nodes:
            if node.name == self.second:
                nodes.append(fused)  # all that it reads is listed before
            elif node.name not in gone:
                nodes.append(reading(node, dict.fromkeys(gone, fused.name)))
        if self.is_parallel(genome):
            (total,) = genome.readers[self.first]
            nodes = _with_one_term_less(nodes, total, fused.name)
        return child_of(nodes, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        child, fused = self.apply(genome), self.fused(genome).name
        if not self.is_parallel(genome):
            return self.second, fused
        (total,) = genome.readers[self.first]
        return total, total if total in child.by_name else fused

    def fused(self, genome: Genome) -> Node:
        """The child's layer in the place of both.

        Raises:
            EditError: When no layer computes the same.
        """
        first, second = node_of(genome, self.first), node_of(genome, self.second)
        if not isinstance(first.op, Layer):
            raise EditError(f"{self.first!r} is no Conv or Linear: nothing can be fused into it")
        for node in (first, second):
            check_plain(node)
        names = fresh_names(genome, "conv", "linear")
        if self.is_parallel(genome):
            op: Layer = _parallel(genome, first, second)
        elif genome.readers[self.first] != (self.second,):
            raise EditError(f"{self.second!r} is not the only node that reads {self.first!r}")
        elif isinstance(second.op, Norm):
            op = msgspec.structs.replace(first.op, bias=True)
        else:
            op = _in_turn(first, second)
        return Node(names["conv" if isinstance(op, Conv) else "linear"], op, first.inputs)

    def is_legal(self, genome: Genome) -> bool:
        try:
            return bool(fitting(genome, self.second, [self.fused(genome)]))
        except EditError:
            return False

    def is_parallel(self, genome: Genome) -> bool:
        """Whether the two read the same, rather than the second the first."""
        return self.first not in node_of(genome, self.second).inputs

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        for node in genome.nodes:
            if isinstance(node.op, Layer) and len(genome.readers[node.name]) == 1:
                reader = genome.by_name[genome.readers[node.name][0]]
                if isinstance(reader.op, Layer | Norm):
                    yield cls(node.name, reader.name)
                elif isinstance(reader.op, Add):
                    later = reader.inputs[reader.inputs.index(node.name) + 1 :]
                    for name in dict.fromkeys(later):
                        if isinstance(genome.by_name[name].op, Layer):
                            yield cls(node.name, name)

    def describe(self) -> str:
        return f"fuse {self.first} and {self.second}"


def _in_turn(first: Node, second: Node) -> Layer:
    """The layer that computes the second of the first."""
    a, b = first.op, second.op
    if isinstance(a, Linear) and isinstance(b, Linear):
        return Linear(b.out_features, a.bias or b.bias)
    if not (isinstance(a, Conv) and isinstance(b, Conv)):
        raise EditError(f"{second.name!r} is no layer like {first.name!r}: they cannot be fused")
    bias = a.bias or b.bias
    if prod(b.kernel) == 1 and not any(b.padding):
        stride = tuple([m * n for m, n in zip(a.stride, b.stride, strict=True)])
        if max(stride) > MAX_EXTENT:
            raise EditError(f"a stride of {stride} is needed; at most {MAX_EXTENT} is allowed")
        return msgspec.structs.replace(a, out_channels=b.out_channels, stride=stride, groups=1, bias=bias)
    if prod(a.kernel) > 1 or any(a.padding) or max(a.stride) > 1:
        raise EditError(f"neither {first.name!r} nor {second.name!r} is a 1x1 that can be fused exactly")
    if a.bias and any(b.padding):
        raise EditError(f"the bias of {first.name!r} does not reach into the padding of {second.name!r}")
    return msgspec.structs.replace(b, groups=1, bias=bias)


def _parallel(genome: Genome, first: Node, second: Node) -> Layer:
    """The layer that computes the sum of both."""
    a, b = first.op, second.op
    readers = genome.readers[first.name]
    total = genome.by_name[readers[0]]
    alone = readers == genome.readers[second.name] and len(readers) == 1 and isinstance(total.op, Add)
    if not alone or first.inputs != second.inputs or first is second:
        raise EditError(f"{first.name!r} and {second.name!r} do not read the same for one Add alone")
    if max(total.inputs.count(first.name), total.inputs.count(second.name)) > 1:
        raise EditError(f"{total.name!r} adds one of {first.name!r} and {second.name!r} more than once")
    if isinstance(a, Linear) and isinstance(b, Linear):
        return Linear(a.out_features, a.bias or b.bias)
    if not (isinstance(a, Conv) and isinstance(b, Conv)):
        raise EditError(f"{first.name!r} and {second.name!r} are no layers of one kind")
    larger, smaller = (a, b) if prod(a.kernel) >= prod(b.kernel) else (b, a)
    rows = zip(larger.kernel, smaller.kernel, larger.dilation, smaller.dilation, strict=True)
    inside = all(m >= n and (m - n) % 2 == 0 and (n == 1 or d == e) for m, n, d, e in rows)
    if not inside or a.stride != b.stride or _start(a) != _start(b) or a.groups != b.groups:
        raise EditError(f"the windows of {first.name!r} and {second.name!r} do not lie one inside the other")
    return msgspec.structs.replace(larger, bias=a.bias or b.bias)


def _start(op: Conv) -> list[int]:
    """Twice the place of the middle of the first window."""
    return [d * (k - 1) - 2 * p for k, p, d in zip(op.kernel, op.padding, op.dilation, strict=True)]


def _with_one_term_less(nodes: list[Node], total: str, fused: str) -> list[Node]:
    """The nodes with the second of two equal terms dropped; a sum of one term is bypassed."""
    node = next(node for node in nodes if node.name == total)
    terms = list(node.inputs)
    terms.reverse()
    terms.remove(fused)
    terms.reverse()
    if len(terms) > 1:
        thinner = Node(total, node.op, tuple(terms))
        return [thinner if old is node else old for old in nodes]
    return [reading(old, {total: fused}) for old in nodes if old is not node]
