"""The operation vocabulary: what each operation does to shapes, parameters, MACs and units.

How units (channels, neurons) pass through an operation is said in six words. An operation *makes*
new units (Conv, Linear, Input), *carries* those it reads (Norm, Activation, pooling, Dropout), *ties*
those of several inputs together (Add, Multiply), *joins* them (Concat) or *spreads* each over several
features (Flatten). A grouped convolution makes units too, tied to those it reads: see `units`.

Shapes are those of one example, without the batch: ``(features,)``, ``(channels, length)`` or
``(channels, height, width)``. Nothing here imports torch.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

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

ActivationFunction = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
    "hardswish",
    "hardsigmoid",
    "mish",
]
_SLOPES = {"leaky_relu": 0.01, "elu": 1.0}


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


def _slide(
    size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil: bool = False
) -> Shape:
    """Output extents of a sliding window (the formulas of torch.nn.Conv2d and MaxPool2d)."""
    out = []
    for i, n in enumerate(size):
        s, p = stride[i], padding[i]
        room = n + 2 * p - dilation[i] * (kernel[i] - 1) - 1
        if room < 0:
            raise OpError(f"window {kernel} does not fit into extents {size} padded by {padding}")
        steps = -(-room // s) if ceil else room // s
        if ceil and steps * s >= n + p:  # the last window must begin inside or in the left padding
            steps -= 1
        out.append(steps + 1)
    return tuple(out)


def _fill_window_defaults(op: Conv | Pool, names: dict[str, int | Shape]) -> None:
    """Gives each omitted window setting its value per dimension, so equal windows are equal data."""
    dims = len(op.kernel)
    if dims not in (1, 2):
        raise OpError(f"kernel has 1 or 2 extents, got {op.kernel}")
    for name, default in names.items():
        value = getattr(op, name)
        if len(value) == dims:
            continue
        if not value:
            filled = (default,) * dims if isinstance(default, int) else default
            force_setattr(op, name, filled)
        else:
            raise OpError(f"{name} {value} does not match the {dims} extents of kernel {op.kernel}")


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


def _window_text(op: Conv | Pool) -> str:
    text = "x".join(map(str, op.kernel))
    if any(s != 1 for s in op.stride):
        text += " /" + "x".join(map(str, dict.fromkeys(op.stride)))
    return text


class Input(Op, frozen=True, tag="input"):
    """The example: shape ``(features,)``, ``(channels, length)`` or ``(channels, height, width)``."""

    shape: Annotated[tuple[Width, ...], Meta(min_length=1, max_length=3)]
    routing: ClassVar[Routing] = "makes"
    num_inputs: ClassVar[tuple[int, int]] = (0, 0)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        return self.shape


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
            _fill_window_defaults(self, {"stride": 1, "padding": 0, "dilation": 1})
        if self.out_channels % self.groups:
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
        window = _slide(extents, self.kernel, self.stride, self.padding, self.dilation)
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
        return f"Conv {_window_text(self)}{groups}{_marks_text(self)}"


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


class Norm(Op, frozen=True, tag="norm"):
    """Batch normalisation with learned scale and shift per channel."""

    eps: Annotated[float, Meta(gt=0, le=1)] = 1e-5

    def __post_init__(self) -> None:
        force_setattr(self, "eps", float(self.eps))  # equal settings are equal text

    def num_params(self, shapes: tuple[Shape, ...], out: Shape) -> int:
        return 2 * shapes[0][0]

    def describe(self) -> str:
        return "BatchNorm"


class Activation(Op, frozen=True, tag="activation"):
    """Elementwise nonlinearity.

    Attributes:
        function: Its name in torch.
        slope: Of a leaky ReLU below zero, or the alpha of an ELU; None for torch's default.
    """

    function: ActivationFunction = "relu"
    slope: Annotated[float, Meta(ge=0, le=1000)] | None = None

    def __post_init__(self) -> None:
        if self.slope is not None:
            if self.function not in _SLOPES:
                raise OpError(f"{self.function} has no slope; {' and '.join(_SLOPES)} have one")
            same = float(self.slope) == _SLOPES[self.function]  # equal settings are equal text
            force_setattr(self, "slope", None if same else float(self.slope) or 0.0)

    def describe(self) -> str:
        return self.function if self.slope is None else f"{self.function} {self.slope:g}"


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
        _fill_window_defaults(self, {"stride": self.kernel, "padding": 0})
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise OpError(f"padding {self.padding} is more than half of kernel {self.kernel}")
        if self.mode == "max" or not any(self.padding):  # then it changes nothing
            force_setattr(self, "count_include_pad", True)

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        channels, *extents = shapes[0]
        if len(extents) != len(self.kernel):
            raise OpError(f"a {len(self.kernel)}-D pooling cannot read shape {shapes[0]}")
        ones = (1,) * len(self.kernel)
        out = _slide(tuple(extents), self.kernel, self.stride, self.padding, ones, self.ceil_mode)
        return (channels, *out)

    def describe(self) -> str:
        return f"{self.mode}-pool {_window_text(self)}"


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


class Scale(Op, frozen=True, tag="scale"):
    """Every element times one constant, plus another."""

    factor: Finite = 1.0
    offset: Finite = 0.0

    def __post_init__(self) -> None:
        for name in ("factor", "offset"):
            force_setattr(self, name, float(getattr(self, name)) or 0.0)

    def describe(self) -> str:
        return f"x {self.factor:g} + {self.offset:g}"


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


class Dropout(Op, frozen=True, tag="dropout"):
    """Zeroes each element with probability `rate` while training."""

    rate: Annotated[float, Meta(ge=0, lt=1)] = 0.5

    def __post_init__(self) -> None:
        force_setattr(self, "rate", float(self.rate) or 0.0)  # no -0.0 either


class Output(Op, frozen=True, tag="output"):
    """Marks the vector of class scores (logits)."""

    def infer(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes[0]) != 1:
            raise OpError(f"the output reads class scores (classes,), got {shapes[0]}")
        return shapes[0]


Layer = Conv | Linear
"""What has weights over all it reads, or over a group of it."""

AnyOp = (
    Input
    | Conv
    | Linear
    | Norm
    | Activation
    | Pool
    | GlobalPool
    | AdaptivePool
    | Pad
    | Scale
    | Select
    | Flatten
    | Add
    | Multiply
    | Concat
    | Dropout
    | Output
)
"""Every operation: what a genome's JSON may hold."""


def is_plain(op: AnyOp) -> bool:
    """Whether an operation is neither sparse nor binary."""
    return not isinstance(op, Layer) or (op.fan_in is None and not op.binary)
