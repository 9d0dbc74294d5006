"""Sparse layers: some weights are masked to zero, the same number for every output unit.

The mask is a buffer beside the weights and is stored with them. A masked weight is zero and gets no gradient,
so it stays exactly zero whatever gradient descent, momentum and weight decay do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evo_topo.sampling import SamplingConv1d, SamplingConv2d


class Masked(nn.Module):
    """What the sparse layers share; a mixin for layers with `weight`, whose arguments it takes."""

    weight: Tensor
    mask: Tensor

    def __init__(self, *args: Any, fan_in: int, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.fan_in = fan_in
        # like the weights, the mask is drawn from torch's random state
        chosen = torch.rand(self.weight.flatten(1).shape).topk(fan_in, dim=1).indices
        mask = torch.zeros(self.weight.flatten(1).shape, dtype=torch.bool).scatter(1, chosen, True)
        self.register_buffer("mask", mask.view_as(self.weight))
        self.weight.data.masked_fill_(~self.mask, 0)


class MaskedLinear(Masked, nn.Linear):
    """A fully connected layer of `fan_in` weights per unit; further arguments as of ``nn.Linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_features) to (batch, out_features)."""
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class MaskedConv1d(Masked, SamplingConv1d):
    """A 1-D convolution of `fan_in` weights per channel; further arguments as of ``nn.Conv1d``."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, length) to (batch, out_channels, length')."""
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class MaskedConv2d(Masked, SamplingConv2d):
    """A 2-D convolution of `fan_in` weights per channel; further arguments as of ``nn.Conv2d``."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height', width')."""
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@torch.no_grad()
def set_connections(layer: Masked, keep: Tensor | None = None, grow: Tensor | None = None) -> None:
    """Gives every output unit of a sparse layer exactly `fan_in` connections, in place.

    Those that are there stay, or where they are too many the ones of largest `keep`; where they are
    too few, the masked ones of largest `grow` join them, at zero.

    Args:
        layer: The layer.
        keep: Importance of each weight, of its shape; by default its magnitude.
        grow: Promise of each masked weight, of its shape; by default random, from a fixed seed.
    """
    weight, mask = layer.weight.flatten(1), layer.mask.flatten(1)
    if grow is None:
        grow = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
    keep = weight.abs() if keep is None else keep
    keep, grow = keep.to(weight.device), grow.to(weight.device)
    order = torch.where(mask, weight.shape[1] + _ranks(keep), _ranks(grow))
    chosen = torch.zeros_like(mask).scatter(1, order.topk(layer.fan_in, dim=1).indices, True)
    layer.weight.masked_fill_(~(chosen & mask).view_as(layer.weight), 0)
    layer.mask.copy_(chosen.view_as(layer.mask))


def _ranks(values: Tensor) -> Tensor:
    """For each row, the place of each value when they are sorted."""
    rows = values.flatten(1)
    return rows.argsort(dim=1, stable=True).argsort(dim=1)
