"""Where a network begins and ends."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from evo_topo.ops.base import Op, OpError, Routing, Shape, Width


class Input(Op, frozen=True, tag="input"):
    """The example: shape ``(features,)``, ``(channels, length)`` or ``(channels, height, width)``."""

    shape: Annotated[tuple[Width, ...], Meta(min_length=1, max_length=3)]
    routing: ClassVar[Routing] = "makes"
    num_inputs: ClassVar[tuple[int, int]] = (0, 0)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        return self.shape


class Output(Op, frozen=True, tag="output"):
    """Marks the vector of class scores (logits)."""

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes[0]) != 1:
            raise OpError(f"the output reads class scores (classes,), got {shapes[0]}")
        return shapes[0]
