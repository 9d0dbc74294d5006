"""Operations that tie, join, select or spread channels."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from evo_topo.ops.base import Channels, Op, OpError, Routing, Shape


class Select(Op, frozen=True, tag="select"):
    """Some channels, in any order: slices, chunks and shuffles along the channels."""

    channels: Channels
    routing: ClassVar[Routing] = "selects"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        if not self.channels:
            raise OpError("selects no channel")
        if not 0 <= min(self.channels) <= max(self.channels) < shapes[0][0]:
            raise OpError(f"selects channels up to {max(self.channels)} of {shapes[0][0]}")
        return (len(self.channels), *shapes[0][1:])

    def describe(self) -> str:
        return f"select {len(self.channels)}"


class Flatten(Op, frozen=True, tag="flatten"):
    """All elements as one feature vector, channel by channel."""

    routing: ClassVar[Routing] = "spreads"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        return (prod(shapes[0]),)


class _Elementwise(Op, frozen=True, tag=False):
    """Elementwise combination; a feature vector, or extents that are all 1, are broadcast."""

    routing: ClassVar[Routing] = "ties"
    num_inputs: ClassVar[tuple[int, int]] = (2, 1024)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        widest = max(shapes, key=lambda shape: (prod(shape), len(shape)))
        point = (widest[0],) + (1,) * (len(widest) - 1)
        for shape in shapes:
            if shape not in (widest, point, widest[:1]):
                raise OpError(f"shapes {shape} and {widest} do not fit together")
        return widest


class Add(_Elementwise, frozen=True, tag_field="kind", tag="add"):
    """Sum of the inputs."""


class Multiply(_Elementwise, frozen=True, tag_field="kind", tag="multiply"):
    """Product of the inputs (gates, squeeze-and-excitation)."""


class Concat(Op, frozen=True, tag="concat"):
    """The inputs side by side along the channels."""

    routing: ClassVar[Routing] = "joins"
    num_inputs: ClassVar[tuple[int, int]] = (2, 1024)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        for shape in shapes:
            if len(shape) != len(shapes[0]) or shape[1:] != shapes[0][1:]:
                raise OpError(f"shapes {shape} and {shapes[0]} differ beyond their channels")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])
