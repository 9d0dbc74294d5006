"""What all operations have in common: shapes, limits, the base record."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

Shape = tuple[int, ...]
Routing = Literal["makes", "carries", "ties", "joins", "selects", "spreads"]

MAX_WIDTH = 2**16
"""Most channels or features that one operation may make."""
MAX_CHANNELS = 2**20
"""Most channels of one tensor, joined or flattened: bounds what finding its units takes."""
MAX_ELEMENTS = 2**28
"""Most elements of one activation (per example) or one weight: 1 GiB of float32."""
MAX_EXTENT = 1024
"""Largest extent of a window, its stride, padding and dilation."""

Connections = Annotated[int, Meta(ge=1, le=MAX_ELEMENTS)]
Width = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
Extents = Annotated[tuple[Annotated[int, Meta(ge=1, le=MAX_EXTENT)], ...], Meta(max_length=2)]
Paddings = Annotated[tuple[Annotated[int, Meta(ge=0, le=MAX_EXTENT)], ...], Meta(max_length=2)]
Margins = Annotated[
    tuple[Annotated[int, Meta(ge=-(2**16), le=MAX_EXTENT)], ...], Meta(min_length=1, max_length=2)
]
Channels = Annotated[
    tuple[Annotated[int, Meta(ge=0, lt=MAX_CHANNELS)], ...], Meta(min_length=1, max_length=MAX_CHANNELS)
]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]


class OpError(ValueError):
    """An operation cannot take the inputs it is given."""


class Op(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", gc=False):
    """Base of all operations; the defaults describe one that carries the units of its one input.

    Frozen records of plain values refer to nothing made after them, so no cycle ever holds them and the
    cyclic garbage collector need not walk them (``gc=False``, here and in other such records).
    """

    routing: ClassVar[Routing] = "carries"
    num_inputs: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        """Returns the output shape for the given input shapes, or raises `OpError`."""
        return shapes[0]

    def num_params(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        """Number of trainable parameters."""
        return 0

    def num_macs(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        """Multiply-accumulates for one example; only convolutions and linear layers have any.

        Masked weights take none; how much less a binary one costs is for `cost` to say.
        """
        return 0

    def describe(self) -> str:
        """A few words for the text form and for drawings."""
        return type(self).__name__
