"""Binary layers: signs times signs, with straight-through gradients (BinaryNet, Courbariaux et al. 2016).

A binary layer keeps real, *latent* weights, which training moves, and multiplies their signs with the
signs of its inputs. Padding contributes nothing. The sums, whole numbers, are scaled per output unit by a
number that the layer was given at its start: the mean absolute weight, as in XNOR-Net (Rastegari et al.
2016, eq. 6). Latent weights get the gradient of the scaled signs, as in DoReFa-Net (Zhou et al. 2016, eq.
8), so that they move as fast as the weights of a real layer do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evo_topo.sampling import SamplingConv1d, SamplingConv2d


class Sign(nn.Module):
    """What a binary layer's inputs pass, and where their signs can be seen."""

    @staticmethod
    def of(x: Tensor, slope: Tensor | None = None) -> Tensor:
        """+1 where x > 0, else -1; where ``|x| <= 1`` the gradient passes times the slope (BinaryNet, eq. 4).

        Zero counts as negative, so that of a ReLU's output the sign says whether the unit is active.
        """
        near = torch.where(x.abs() <= 1, x, 0)
        through = near - near.detach()  # zero, but for its gradient
        return 2 * (x > 0).to(x.dtype) - 1 + (through if slope is None else through * slope)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of x, in its shape."""
        return self.of(x)


class Binary(nn.Module):
    """What the binary layers share; a mixin for layers with `weight` and `bias`, whose arguments it takes."""

    weight: Tensor
    bias: Any
    scale: Tensor

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sign = Sign()
        self.register_buffer("scale", self.mean_magnitude(self.weight.detach()))
        self.per_unit = (-1,) + (1,) * (self.weight.dim() - 2)
        self.per_weight = (-1,) + (1,) * (self.weight.dim() - 1)

    @staticmethod
    def mean_magnitude(weight: Tensor) -> Tensor:
        """Mean absolute weight of each output unit: the best scale of its signs (XNOR-Net, eq. 6)."""
        return weight.abs().flatten(1).mean(1)

    def _signs(self) -> Tensor:
        """Signs of the latent weights; undoing the scale makes the gradient that of the scaled signs."""
        scale = self.scale.clamp(min=1e-9).view(self.per_weight)
        return Sign.of(self.weight, 1 / scale)

    def _scaled(self, sums: Tensor) -> Tensor:
        out = sums * self.scale.view(self.per_unit)
        return out if self.bias is None else out + self.bias.view(self.per_unit)


class BinaryLinear(Binary, nn.Linear):
    """A fully connected layer of signs; arguments as of ``nn.Linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_features) to (batch, out_features)."""
        return self._scaled(nn.functional.linear(self.sign(x), self._signs()))


class BinaryConv1d(Binary, SamplingConv1d):
    """A 1-D convolution of signs; arguments as of ``nn.Conv1d``."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, length) to (batch, out_channels, length')."""
        return self._scaled(self._conv_forward(self.sign(x), self._signs(), None))


class BinaryConv2d(Binary, SamplingConv2d):
    """A 2-D convolution of signs; arguments as of ``nn.Conv2d``."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height', width')."""
        return self._scaled(self._conv_forward(self.sign(x), self._signs(), None))


def latent_weights(model: nn.Module) -> list[Tensor]:
    """The latent weights of all binary layers."""
    return [module.weight for module in model.modules() if isinstance(module, Binary)]


@torch.no_grad()
def clip_latent(weights: list[Tensor]) -> None:
    """Clips latent weights to [-1, 1], in place, beyond which they have no effect and no gradient."""
    for weight in weights:
        weight.clamp_(-1, 1)


def binarised(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a binary layer that starts from a real one's weights."""
    weight = state["weight"]
    return {**state, "scale": Binary.mean_magnitude(weight), "weight": weight.clamp(-1, 1)}


def debinarised(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a real layer with the weights that a binary one multiplies."""
    real = dict(state)
    scale = real.pop("scale").view(-1, *[1] * (state["weight"].dim() - 1))
    return {**real, "weight": scale * Sign.of(state["weight"])}
