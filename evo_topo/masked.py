"""Sparse layers: some weights are masked to zero, the same number for every output unit.

The mask is a buffer beside the weights and is stored with them. A masked weight is zero and gets no gradient,
so it stays exactly zero whatever gradient descent, momentum and weight decay do.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class _Masked(nn.Module):
    """What the sparse layers share; a mixin for layers with `weight`."""

    weight: Tensor
    mask: Tensor

    def _prepare(self, fan_in: int) -> None:
        """Draws which weights are there, like the weights from torch's random state."""
        self.fan_in = fan_in
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))
        self.set_connections(keep=torch.rand(self.weight.shape))

    @torch.no_grad()
    def set_connections(self, keep: Tensor | None = None, grow: Tensor | None = None) -> None:
        """Gives every output unit exactly `fan_in` connections.

        Those that are there stay, or where they are too many the ones of largest `keep`; where they are
        too few, the masked ones of largest `grow` join them, at zero.

        Args:
            keep: Importance of each weight, of its shape; by default its magnitude.
            grow: Promise of each masked weight, of its shape; by default random, from a fixed seed.
        """
        weight, mask = self.weight.flatten(1), self.mask.flatten(1)
        if grow is None:
            grow = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
        keep = weight.abs() if keep is None else keep
        keep, grow = keep.to(weight.device), grow.to(weight.device)
        order = torch.where(mask, weight.shape[1] + _ranks(keep), _ranks(grow))
        chosen = torch.zeros_like(mask).scatter(1, order.topk(self.fan_in, dim=1).indices, True)
        self.weight.masked_fill_(~(chosen & mask).view_as(self.weight), 0)
        self.mask.copy_(chosen.view_as(self.mask))


def _ranks(values: Tensor) -> Tensor:
    """For each row, the place of each value when they are sorted."""
    rows = values.flatten(1)
    return rows.argsort(dim=1, stable=True).argsort(dim=1)


class MaskedLinear(_Masked, nn.Linear):
    """A fully connected layer of `fan_in` weights per unit; further arguments as of ``nn.Linear``."""

    def __init__(self, *args: Any, fan_in: int) -> None:
        super().__init__(*args)
        self._prepare(fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_features) to (batch, out_features)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedConv1d(_Masked, nn.Conv1d):
    """A 1-D convolution of `fan_in` weights per channel; further arguments as of ``nn.Conv1d``."""

    def __init__(self, *args: Any, fan_in: int) -> None:
        super().__init__(*args)
        self._prepare(fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, length) to (batch, out_channels, length')."""
        out: Tensor = self._conv_forward(x, self.weight * self.mask, self.bias)
        return out


class MaskedConv2d(_Masked, nn.Conv2d):
    """A 2-D convolution of `fan_in` weights per channel; further arguments as of ``nn.Conv2d``."""

    def __init__(self, *args: Any, fan_in: int) -> None:
        super().__init__(*args)
        self._prepare(fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height', width')."""
        out: Tensor = self._conv_forward(x, self.weight * self.mask, self.bias)
        return out


MASKED = (MaskedLinear, MaskedConv1d, MaskedConv2d)
