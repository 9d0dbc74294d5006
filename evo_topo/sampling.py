"""Convolutions that read every n-th point before they mix channels, where their window is one point.

They compute what torch's do, whose way back overruns memory on the CPU where such a convolution has a stride,
its input is in channels_last and has few channels: fewer than 8 with AVX2 (oneDNN's issue 6035, torch 2.14).
"""

from __future__ import annotations

from torch import Tensor, nn


class SamplingConv1d(nn.Conv1d):
    """A 1-D convolution; a pointwise one samples first."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if self.kernel_size != (1,) or self.padding != (0,):
            made: Tensor = super()._conv_forward(input, weight, bias)
            return made
        read = input[:, :, :: self.stride[0]]
        return nn.functional.conv1d(read, weight, bias, groups=self.groups)


class SamplingConv2d(nn.Conv2d):
    """A 2-D convolution; a pointwise one samples first."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if self.kernel_size != (1, 1) or self.padding != (0, 0):
            made: Tensor = super()._conv_forward(input, weight, bias)
            return made
        read = input[:, :, :: self.stride[0], :: self.stride[1]]
        return nn.functional.conv2d(read, weight, bias, groups=self.groups)
