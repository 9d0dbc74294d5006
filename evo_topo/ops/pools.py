"""Operations on the extents of maps: pooling and margins."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from evo_topo.ops.base import Extents, Margins, Op, OpError, Paddings, Shape
from evo_topo.ops.windows import fill_window_defaults, slide, window_text


class Pool(Op, frozen=True, tag="pool"):
    """Max or average pooling over a window; the stride defaults to the kernel.

    Attributes:
        kernel: Extents of the window.
        mode: Maximum or mean.
        stride: Step of the window.
        padding: Added on either side; a maximum ignores it.
        ceil_mode: Whether a last window may reach beyond the end.
        count_include_pad: Whether a mean counts the padding as zeros.
    """

    kernel: Extents
    mode: Literal["max", "avg"] = "max"
    stride: Extents = ()
    padding: Paddings = ()
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        fill_window_defaults(self, self.kernel, {"stride": self.kernel, "padding": 0})
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise OpError(f"padding {self.padding} is more than half of kernel {self.kernel}")
        if self.mode == "max" or not any(self.padding):  # then it changes nothing
            force_setattr(self, "count_include_pad", True)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        channels, *extents = shapes[0]
        if len(extents) != len(self.kernel):
            raise OpError(f"a {len(self.kernel)}-D pooling cannot read shape {shapes[0]}")
        ones = (1,) * len(self.kernel)
        out = slide(tuple(extents), self.kernel, self.stride, self.padding, ones, self.ceil_mode)
        return (channels, *out)

    def describe(self) -> str:
        return f"{self.mode}-pool {window_text(self.kernel, self.stride)}"


class GlobalPool(Op, frozen=True, tag="global_pool"):
    """Pools every spatial extent down to 1; keeps the dimensions, so `Multiply` can gate with it."""

    mode: Literal["max", "avg"] = "avg"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes[0]) < 2:
            raise OpError(f"global pooling reads a shape with spatial extents, got {shapes[0]}")
        return (shapes[0][0],) + (1,) * (len(shapes[0]) - 1)

    def describe(self) -> str:
        return f"global {self.mode}-pool"


class AdaptivePool(Op, frozen=True, tag="adaptive_pool"):
    """Pools to given extents, each output over its share of the input (torch's adaptive pooling)."""

    size: Annotated[Extents, Meta(min_length=1)]
    mode: Literal["max", "avg"] = "avg"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes[0]) != 1 + len(self.size) or not self.size:
            raise OpError(f"adaptive pooling to {self.size} cannot read shape {shapes[0]}")
        return (shapes[0][0], *self.size)

    def describe(self) -> str:
        return f"{self.mode}-pool to {'x'.join(map(str, self.size))}"


class Pad(Op, frozen=True, tag="pad"):
    """Adds margins to the extents, or crops where a margin is negative.

    Attributes:
        before: Margin in front of each extent.
        after: Margin behind it.
        fill: What the margins hold; ``lowest`` is minus infinity, for a maximum to ignore.
    """

    before: Margins
    after: Margins
    fill: Literal["zero", "lowest"] = "zero"

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        channels, *extents = shapes[0]
        if not len(extents) == len(self.before) == len(self.after):
            raise OpError(f"margins {self.before} and {self.after} do not match shape {shapes[0]}")
        out = tuple([n + a + b for n, a, b in zip(extents, self.before, self.after, strict=True)])
        if any(
            n + min(a, 0) + min(b, 0) < 1 for n, a, b in zip(extents, self.before, self.after, strict=True)
        ):
            raise OpError(f"margins {self.before} and {self.after} leave nothing of shape {shapes[0]}")
        return (channels, *out)

    def describe(self) -> str:
        return f"pad {self.before} {self.after}"
