"""Operations with weights over all they read, or over a group of it."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from evo_topo.ops.base import (
    MAX_ELEMENTS,
    MAX_WIDTH,
    Connections,
    Extents,
    Op,
    OpError,
    Paddings,
    Routing,
    Shape,
    Width,
)
from evo_topo.ops.windows import fill_window_defaults, slide, window_text


class Conv(Op, frozen=True, tag="conv"):
    """1-D or 2-D convolution; ``groups == in_channels == out_channels`` is a depthwise one.

    Attributes:
        fan_in: Weights of each output unit that are not masked to zero; all of them where it is None.
        binary: Multiplies signs of the inputs with signs of the weights, then scales each output unit.
    """

    out_channels: Width
    kernel: Extents
    stride: Extents = ()
    padding: Paddings = ()
    dilation: Extents = ()
    groups: Width = 1
    bias: bool = False
    fan_in: Connections | None = None
    binary: bool = False
    routing: ClassVar[Routing] = "makes"

    def __post_init__(self) -> None:
        dims = len(self.kernel)
        if not 1 <= dims == len(self.stride) == len(self.padding) == len(self.dilation) <= 2:
            fill_window_defaults(self, self.kernel, {"stride": 1, "padding": 0, "dilation": 1})
        if self.groups < 1 or self.out_channels % self.groups:
            raise OpError(f"out_channels {self.out_channels} is no multiple of groups {self.groups}")

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        _check_width(self.out_channels)
        channels, extents = shapes[0][0], shapes[0][1:]
        if len(extents) != len(self.kernel):
            raise OpError(f"a {len(self.kernel)}-D convolution cannot read shape {shapes[0]}")
        if channels % self.groups:
            raise OpError(f"{channels} input channels are no multiple of groups {self.groups}")
        fan_in = self.dense_fan_in(channels)
        if self.out_channels * (fan_in + self.bias) > MAX_ELEMENTS:
            raise OpError(f"more than {MAX_ELEMENTS} weights")
        _check_marks(self, fan_in)
        window = slide(extents, self.kernel, self.stride, self.padding, self.dilation)
        return (self.out_channels, *window)

    def num_params(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        return self.out_channels * (self.dense_fan_in(shapes[0][0]) + self.bias)

    def num_macs(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        return prod(out) * (self.fan_in or self.dense_fan_in(shapes[0][0]))

    def dense_fan_in(self, width: int) -> int:
        """Weights of one output unit, masked or not, over `width` input channels."""
        return width // self.groups * prod(self.kernel)

    def describe(self) -> str:
        groups = "" if self.groups == 1 else f" groups {self.groups}"
        return f"Conv {window_text(self.kernel, self.stride)}{groups}{_marks_text(self)}"


class Linear(Op, frozen=True, tag="linear"):
    """Fully connected layer on a feature vector; `fan_in` and `binary` as in `Conv`."""

    out_features: Width
    bias: bool = True
    fan_in: Connections | None = None
    binary: bool = False
    routing: ClassVar[Routing] = "makes"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        _check_width(self.out_features)
        if len(shapes[0]) != 1:
            raise OpError(f"a linear layer reads (features,), got {shapes[0]}; flatten it first")
        if self.num_params(shapes, ()) > MAX_ELEMENTS:
            raise OpError(f"more than {MAX_ELEMENTS} weights")
        _check_marks(self, self.dense_fan_in(shapes[0][0]))
        return (self.out_features,)

    def num_params(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        return self.out_features * (self.dense_fan_in(shapes[0][0]) + self.bias)

    def num_macs(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        return self.out_features * (self.fan_in or self.dense_fan_in(shapes[0][0]))

    def dense_fan_in(self, width: int) -> int:
        """Weights of one output unit, masked or not, over `width` input features."""
        return width

    def describe(self) -> str:
        return f"Linear{_marks_text(self)}"


Layer = Conv | Linear
"""What has weights over all it reads, or over a group of it."""


def _check_width(width: int) -> None:
    """The bounds of `Width` again, for operations that do not come from JSON."""
    if not 1 <= width <= MAX_WIDTH:
        raise OpError(f"makes {width} units: from 1 to {MAX_WIDTH} are allowed")


def _check_marks(op: Layer, dense: int) -> None:
    """A layer is dense, or has fewer connections than that, or is binary."""
    if op.fan_in is None:
        return
    if not 1 <= op.fan_in < dense:
        raise OpError(
            f"fan_in {op.fan_in}: a sparse layer has 1 to {dense - 1} of {dense} weights per output unit; "
            "leave fan_in out for a dense one"
        )
    if op.binary:
        raise OpError("a binary weight is never zero: a layer has fan_in or is binary, not both")


def _marks_text(op: Layer) -> str:
    sparse = "" if op.fan_in is None else f" fan-in {op.fan_in}"
    return sparse + " binary" * op.binary
