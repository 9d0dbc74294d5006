"""Linear maps that start at zero, and the direction in which each should leave it.

With gradient ``M = E[g x^T]`` and curvature ``A (x) B`` of the Kronecker-factored Gauss-Newton matrix
(Martens & Grosse 2015; for convolutions Grosse & Martens 2016, here with the identity over the taps) the
direction of descent is ``-B^-1 M A^-1``. Where only some weights are new, both ``M`` and the direction have
these alone; it still descends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from evo_topo.inheritance.directions import conv_weight_gradient
from evo_topo.ops import Conv, Linear

DAMPING = 0.1
"""Added to each Kronecker factor, as a share of its mean eigenvalue."""


class NewMap:
    """A linear map that starts at zero, and the direction in which it should leave it.

    Args:
        target: Node to whose value it is added.
        op: A Conv or Linear that says how it reads; None for one factor per channel.
        room: Of the slope by the weights, (outputs, inputs, *taps): which of them are new; all by default.
        behind_relu: Whether it is added in front of the activation that `target` is.
    """

    def __init__(
        self,
        target: str,
        op: Conv | Linear | None,
        room: Callable[[Tensor], Tensor] | None = None,
        behind_relu: bool = False,
    ) -> None:
        self.target, self._op, self._room, self._behind_relu = target, op, room, behind_relu
        self._slope: Tensor | None = None  # sums over what was observed
        self._reads: Tensor | None = None
        self._curves: Tensor | None = None
        self.weight: Tensor | None = None

    def observe(self, x: Tensor, y: Tensor, gradient: Tensor, curvatures: Sequence[Tensor]) -> None:
        """Adds examples: what is read, what is added to, its gradients of the loss and of `hessian_root`."""
        slope = self._weight_gradient(x, self._seen(y, gradient))
        reads = _second_moment(x)
        curves = sum((_second_moment(self._seen(y, s)) for s in curvatures), torch.zeros(()))
        self._slope = slope if self._slope is None else self._slope + slope
        self._reads = reads if self._reads is None else self._reads + reads
        self._curves = curves if self._curves is None else self._curves + curves

    def settle(self) -> None:
        """Sets the direction, from all that was observed."""
        assert self._slope is not None
        assert self._reads is not None
        assert self._curves is not None
        slope = self._slope.double()
        room = torch.ones_like(slope) if self._room is None else self._room(slope)
        slope = slope * room
        a, b = _damped(self._reads), _damped(self._curves)
        if self._op is None:
            step = slope / (a.diagonal() * b.diagonal())
        elif slope.shape[1] != len(a):  # groups: each output reads inputs of its own
            step = slope / b.diagonal().view(-1, *[1] * (slope.dim() - 1))
        else:
            step = torch.linalg.solve(b, slope.flatten(1)).reshape(slope.shape)
            step = torch.linalg.solve(a, step.transpose(0, 1).flatten(1)).reshape(
                len(a), len(b), *slope.shape[2:]
            )
            step = step.transpose(0, 1)
        self.weight = -(step * room).to(self._slope.dtype).contiguous()

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """By how much the value of the target changes, per unit of step."""
        assert self.weight is not None
        op = self._op
        if op is None:
            return self._seen(y, x * self.weight.view(-1, *[1] * (x.dim() - 2)))
        if isinstance(op, Linear):
            return self._seen(y, functional.linear(x, self.weight))
        run: Callable[..., Tensor] = functional.conv1d if len(op.kernel) == 1 else functional.conv2d
        made = run(x, self.weight, None, op.stride, op.padding, op.dilation, op.groups)
        return self._seen(y, made)

    def _seen(self, y: Tensor, values: Tensor) -> Tensor:
        """What passes the activation; y is its output, of a ReLU or ReLU6."""
        return values * ((y > 0) & (y != 6)) if self._behind_relu else values

    def _weight_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        op = self._op
        if op is None:
            return (x * gradient).transpose(0, 1).flatten(1).sum(1)
        if isinstance(op, Linear):
            return gradient.T @ x
        size = (gradient.shape[1], x.shape[1] // op.groups, *op.kernel)
        return conv_weight_gradient(op, x, size, gradient)


def _second_moment(values: Tensor) -> Tensor:
    """Products of channels summed over examples and space, (channels, channels)."""
    rows = values.transpose(0, 1).flatten(1)
    return rows @ rows.T


def _damped(moment: Tensor) -> Tensor:
    mean = moment.diagonal().double().mean()
    eye = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    return moment.double() + (DAMPING * mean + 1e-30) * eye


def border(inner: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """All taps but those of a window in the middle."""

    def room(slope: Tensor) -> Tensor:
        border = [(k - n) // 2 for k, n in zip(slope.shape[2:], inner, strict=True)]
        middle = [slice(b, k - b) for b, k in zip(border, slope.shape[2:], strict=True)]
        new = torch.ones_like(slope, dtype=torch.bool)
        new[(slice(None), slice(None), *middle)] = False
        return new

    return room


def steepest(mask: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """Of each output's masked weights, so many of steepest slope: those that come back with examples."""

    def room(slope: Tensor) -> Tensor:
        steepness = slope.abs().masked_fill(mask, -1).flatten(1)
        new = torch.zeros_like(steepness, dtype=torch.bool)
        return new.scatter(1, steepness.topk(count, dim=1).indices, True).view_as(slope)

    return room
