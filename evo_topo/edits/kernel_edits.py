"""Kernel edits: drop or add the border taps of a convolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import msgspec

from evo_topo.edits.base import Edit, EditError
from evo_topo.edits.surgery import check_plain, conv_of, fitting, with_ops
from evo_topo.genome import Genome, Node
from evo_topo.ops import MAX_EXTENT, Conv


class _KernelEdit(Edit, frozen=True):
    """An edit of one convolution's window, whose output keeps its shape."""

    conv: str

    def apply(self, genome: Genome) -> Genome:
        return with_ops(genome, {self.conv: self.resized(genome)}, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.conv, self.conv

    def is_legal(self, genome: Genome) -> bool:
        try:
            node = Node(self.conv, self.resized(genome), genome.by_name[self.conv].inputs)
            return bool(fitting(genome, self.conv, [node]))
        except EditError:
            return False

    def resized(self, genome: Genome) -> Conv:
        """The child's convolution.

        Raises:
            EditError: When there is none.
        """
        raise NotImplementedError


class ShrinkKernel(_KernelEdit, frozen=True, tag="shrink_kernel"):
    """Drops the border taps of a convolution: 5 to 3, 3 to 1; the padding follows.

    Every extent of three or more loses two taps. Sparse and binary layers are refused.
    """

    def resized(self, genome: Genome) -> Conv:
        node, op = conv_of(genome, self.conv)
        check_plain(node)
        fewer = [2 if k >= 3 else 0 for k in op.kernel]
        padding = [p - n // 2 * d for p, n, d in zip(op.padding, fewer, op.dilation, strict=True)]
        if not any(fewer):
            raise EditError(f"kernel {op.kernel} of {self.conv!r} has no border taps to drop")
        if min(padding) < 0:
            raise EditError(
                f"{self.conv!r} has padding {op.padding}: without border taps its windows would not "
                "stay where they are; the padding must be at least the dilation"
            )
        return _resized(op, [-n for n in fewer], padding)

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(n.name) for n in genome.nodes if isinstance(n.op, Conv) and max(n.op.kernel) >= 3)

    def describe(self) -> str:
        return f"shrink kernel of {self.conv}"


class GrowKernel(_KernelEdit, frozen=True, tag="grow_kernel"):
    """Adds border taps of weight zero to a convolution: 1 to 3, 3 to 5; the padding follows.

    Every extent gains two taps along which the new ones would reach the map that is read. Sparse and binary
    layers are refused; a binary weight is never zero.
    """

    is_function_preserving: ClassVar[bool] = True

    def resized(self, genome: Genome) -> Conv:
        node, op = conv_of(genome, self.conv)
        check_plain(node)
        sizes = genome.shapes[node.inputs[0]][1:]
        # the outer taps of a window in the middle lie d (k + 1) / 2 from its centre
        reach = [d * (k + 1) < 2 * n for n, k, d in zip(sizes, op.kernel, op.dilation, strict=True)]
        if not any(reach):
            raise EditError(f"larger windows of {self.conv!r} would see only padding around {sizes}")
        more = [2 * r for r in reach]
        padding = [p + r * d for p, r, d in zip(op.padding, reach, op.dilation, strict=True)]
        child = _resized(op, more, padding)
        if max(*child.kernel, *child.padding) > MAX_EXTENT:
            raise EditError(f"kernel {child.kernel} with padding {child.padding}: at most {MAX_EXTENT}")
        return child

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(node.name) for node in genome.nodes if isinstance(node.op, Conv))

    def describe(self) -> str:
        return f"grow kernel of {self.conv}"


def _resized(op: Conv, change: list[int], padding: list[int]) -> Conv:
    kernel = tuple([k + c for k, c in zip(op.kernel, change, strict=True)])
    return msgspec.structs.replace(op, kernel=kernel, padding=tuple(padding))
