"""Modules of a network that torch lacks. They stand in exported sources as they are here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ReLU(nn.ReLU):
    """Writes over what it reads where the network says so, and not when it is called alone."""

    def forward(self, input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
        """Same shape as the input."""
        return nn.functional.relu(input, inplace)


class ReLU6(nn.ReLU6):
    """Writes over what it reads where the network says so, and not when it is called alone."""

    def forward(self, input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
        """Same shape as the input."""
        return nn.functional.relu6(input, inplace)


class LeakyReLU(nn.LeakyReLU):
    """Writes over what it reads where the network says so, and not when it is called alone."""

    def forward(self, input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
        """Same shape as the input."""
        return nn.functional.leaky_relu(input, self.negative_slope, inplace)


class Affine(nn.Module):
    """Every element times `factor`, plus `offset`."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor = factor
        self.offset = offset

    def forward(self, inputs: Tensor) -> Tensor:
        """Same shape as the inputs."""
        scaled = inputs if self.factor == 1 else inputs * self.factor
        return scaled if self.offset == 0 else scaled + self.offset

    def extra_repr(self) -> str:
        """The constants, for the text form."""
        return f"{self.factor}, {self.offset}"


class Selection(nn.Module):
    """Some channels, in any order."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        # part of the genome, not of the state; on the CPU also where weights are only planned
        self.register_buffer("channels", torch.tensor(channels, device="cpu"), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The channels (dimension 1) of the inputs that are selected."""
        return inputs.index_select(1, self.get_buffer("channels"))
