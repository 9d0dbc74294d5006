"""Operations that treat every element, or channel, alike: normalisation, activations, constants, dropout."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from evo_topo.ops.base import Finite, Op, OpError, Shape

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


class Scale(Op, frozen=True, tag="scale"):
    """Every element times one constant, plus another."""

    factor: Finite = 1.0
    offset: Finite = 0.0

    def __post_init__(self) -> None:
        for name in ("factor", "offset"):
            force_setattr(self, name, float(getattr(self, name)) or 0.0)

    def describe(self) -> str:
        return f"x {self.factor:g} + {self.offset:g}"


class Dropout(Op, frozen=True, tag="dropout"):
    """Zeroes each element with probability `rate` while training."""

    rate: Annotated[float, Meta(ge=0, lt=1)] = 0.5

    def __post_init__(self) -> None:
        force_setattr(self, "rate", float(self.rate) or 0.0)  # no -0.0 either
