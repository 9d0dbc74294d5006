"""Binary layers: signs times signs, with straight-through gradients (BinaryNet, Courbariaux et al. 2016).

A binary layer keeps real, *latent* weights, which training moves, and multiplies their signs with the
signs of its inputs. Padding contributes nothing. The sums, whole numbers, are scaled per output unit, as in
XNOR-Net (Rastegari et al. 2016), by a learned number that starts as the mean absolute weight (their eq. 6).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class _Sign(torch.autograd.Function):
    """Sign forwards, hard tanh backwards (BinaryNet, eq. 4)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * (x > 0).to(x.dtype) - 1

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return gradient * (x.abs() <= 1)


@torch.fx.wrap
def binary_sign(x: Tensor) -> Tensor:
    """+1 where x > 0, else -1; the gradient passes where ``|x| <= 1``.

    Zero counts as negative, so that of a ReLU's output the sign says whether the unit is active.
    """
    signs: Tensor = _Sign.apply(x)
    return signs


class Sign(nn.Module):
    """`binary_sign` as a module: what a binary layer's inputs pass, and where their signs can be seen."""

    def forward(self, x: Tensor) -> Tensor:
        """Signs of x, in its shape."""
        return binary_sign(x)


class _Binary(nn.Module):
    """What the binary layers share; a mixin for layers with `weight` and `bias`."""

    weight: Tensor
    bias: Any

    def _prepare(self) -> None:
        self.sign = Sign()
        self.scale = nn.Parameter(mean_magnitude(self.weight.detach()))
        self.per_unit = (-1,) + (1,) * (self.weight.dim() - 2)

    def _scaled(self, sums: Tensor) -> Tensor:
        out = sums * self.scale.view(self.per_unit)
        return out if self.bias is None else out + self.bias.view(self.per_unit)


class BinaryLinear(_Binary, nn.Linear):
    """A fully connected layer of signs; arguments as of ``nn.Linear``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_features) to (batch, out_features)."""
        return self._scaled(F.linear(self.sign(x), binary_sign(self.weight)))


class BinaryConv1d(_Binary, nn.Conv1d):
    """A 1-D convolution of signs; arguments as of ``nn.Conv1d``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, length) to (batch, out_channels, length')."""
        return self._scaled(self._conv_forward(self.sign(x), binary_sign(self.weight), None))


class BinaryConv2d(_Binary, nn.Conv2d):
    """A 2-D convolution of signs; arguments as of ``nn.Conv2d``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, out_channels, height', width')."""
        return self._scaled(self._conv_forward(self.sign(x), binary_sign(self.weight), None))


def mean_magnitude(weight: Tensor) -> Tensor:
    """Mean absolute weight of each output unit: the best scale of its signs (XNOR-Net, eq. 6)."""
    return weight.abs().flatten(1).mean(1)


def latent_weights(model: nn.Module) -> list[Tensor]:
    """The latent weights of all binary layers."""
    return [module.weight for module in model.modules() if isinstance(module, _Binary)]


@torch.no_grad()
def clip_latent(weights: list[Tensor]) -> None:
    """Clips latent weights to [-1, 1], in place, beyond which they have no effect and no gradient."""
    for weight in weights:
        weight.clamp_(-1, 1)


def binarised(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a binary layer that starts from a real one's weights."""
    weight = state["weight"]
    return {**state, "scale": mean_magnitude(weight), "weight": weight.clamp(-1, 1)}


def debinarised(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a real layer with the weights that a binary one multiplies."""
    real = dict(state)
    scale = real.pop("scale").view(-1, *[1] * (state["weight"].dim() - 1))
    return {**real, "weight": scale * binary_sign(state["weight"])}
