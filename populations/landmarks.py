"""Landmark architectures of small networks, as founders: SqueezeNet and BinaryNet."""

from __future__ import annotations

from collections.abc import Sequence

from evo_topo.genome import Genome
from evo_topo.ops import Activation, Concat, Conv, Norm, Pool, Shape
from populations.founders import Sketch


def squeeze_net(
    input_shape: Shape, num_classes: int, width: int, fires: Sequence[Sequence[tuple[int, int]]]
) -> Genome:
    """Fire modules, with a max-pooling between stages (SqueezeNet, Iandola et al. 2016, sec. 3).

    A fire module squeezes with a 1-wide convolution, then expands with 1-wide and 3-wide ones side by side.
    Each convolution has a BatchNorm, which the paper's lack; the last is the linear classifier's.

    Args:
        input_shape: ``(channels, height, width)`` or ``(channels, length)``.
        num_classes: Number of classes.
        width: Channels of the first convolution.
        fires: For each stage, for each fire module, its squeezed channels and those of either expansion.
    """
    sketch = Sketch(input_shape)
    last = sketch.conv_norm_relu(width, "input0")
    for stage, modules in enumerate(fires):
        if stage:
            last = sketch.add("pool", Pool((2,) * sketch.dims))
        for squeezed, expanded in modules:
            read = sketch.conv_norm_relu(squeezed, last, kernel=1)
            ends = [sketch.conv_norm_relu(expanded, read, kernel) for kernel in (1, 3)]
            last = sketch.add("concat", Concat(), *ends)
    return sketch.classify(num_classes)


def binary_net(input_shape: Shape, num_classes: int, widths: Sequence[int], strides: Sequence[int]) -> Genome:
    """A chain of convolutions with BatchNorm, all but the first binary (BinaryNet, Courbariaux et al. 2016).

    No activation stands between them, for each binary layer takes the signs of what it reads. The first
    layer and the classifier are real, as in XNOR-Net (Rastegari et al. 2016).

    Args:
        input_shape: ``(channels, length)`` or ``(channels, height, width)``.
        num_classes: Number of classes.
        widths: Channels of each layer.
        strides: Stride of each layer.
    """
    sketch = Sketch(input_shape)
    for place, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        kernels, steps, paddings = [(size,) * sketch.dims for size in (3, stride, 1)]
        sketch.add("conv", Conv(width, kernels, steps, paddings, binary=place > 0))
        sketch.add("norm", Norm())
    sketch.add("relu", Activation("relu"))
    return sketch.classify(num_classes)
