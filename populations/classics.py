"""Classic networks as founders, by name, for any input shape and number of classes."""

from __future__ import annotations

from collections.abc import Callable

from evo_topo.genome import Genome
from evo_topo.ops import (
    Activation,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalPool,
    Linear,
    Norm,
    Output,
    Pool,
    Shape,
)
from populations.founders import Sketch, residual_net
from populations.landmarks import binary_net

FounderMaker = Callable[[Shape, int], Genome]
FIRE_MODULES = (
    (16, 64),
    (16, 64),
    None,
    (32, 128),
    (32, 128),
    None,
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
)
"""Squeezed and expanded channels of SqueezeNet 1.1; None for pooling."""
INVERTED_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of each stage of MobileNetV2, strides for images of 32 x 32."""


def minimal(input_shape: Shape, num_classes: int) -> Genome:
    """One convolution of four channels (or one linear layer of four features): a seed to grow from."""
    sketch = Sketch(input_shape)
    if sketch.dims:
        sketch.conv_norm_relu(4, "input0")
        return sketch.classify(num_classes)
    sketch.add("linear", Linear(4))
    sketch.add("relu", Activation("relu"))
    return sketch.finish(num_classes)


def mlp(input_shape: Shape, num_classes: int) -> Genome:
    """LeNet-300-100 (LeCun et al. 1998, table in sec. III): two hidden layers, for inputs of any shape."""
    sketch = Sketch(input_shape)
    if sketch.dims:
        sketch.add("flatten", Flatten())
    for width in (300, 100):
        sketch.add("linear", Linear(width))
        sketch.add("relu", Activation("relu"))
    return sketch.finish(num_classes)


def lenet5(input_shape: Shape, num_classes: int) -> Genome:
    """LeNet-5 (LeCun et al. 1998, fig. 2), with full connections, average pooling and tanh.

    Images of 28 x 28 or smaller are padded, as in the paper.
    """
    _check_maps("lenet5", input_shape, 12)
    sketch = Sketch(input_shape)
    padding = (2, 2) if min(input_shape[1:]) <= 28 else (0, 0)
    for width, pad in ((6, padding), (16, (0, 0))):
        sketch.add("conv", Conv(width, (5, 5), padding=pad, bias=True))
        sketch.add("tanh", Activation("tanh"))
        sketch.add("pool", Pool((2, 2), "avg"))
    sketch.add("flatten", Flatten())
    for width in (120, 84):
        sketch.add("linear", Linear(width))
        sketch.add("tanh", Activation("tanh"))
    return sketch.finish(num_classes)


def resnet20(input_shape: Shape, num_classes: int) -> Genome:
    """ResNet-20 for small images (He et al. 2016, sec. 4.2)."""
    return residual_net(input_shape, num_classes, (16, 32, 64), 3)


def resnet56(input_shape: Shape, num_classes: int) -> Genome:
    """ResNet-56 for small images (He et al. 2016, sec. 4.2)."""
    return residual_net(input_shape, num_classes, (16, 32, 64), 9)


def vgg19(input_shape: Shape, num_classes: int) -> Genome:
    """VGG-19 with BatchNorm and one linear layer, as used on CIFAR (Liu et al. 2017, Network Slimming)."""
    _check_maps("vgg19", input_shape, 16)
    sketch = Sketch(input_shape)
    last = "input0"
    for stage, (width, layers) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))):
        if stage:
            last = sketch.add("pool", Pool((2, 2)))
        for _ in range(layers):
            last = sketch.conv_norm_relu(width, last)
    return sketch.classify(num_classes)


def mobilenet_v2(input_shape: Shape, num_classes: int) -> Genome:
    """MobileNetV2 (Sandler et al. 2018, table 2) with the first two halvings left out, for small images."""
    _check_maps("mobilenet_v2", input_shape, 8)
    sketch = Sketch(input_shape)
    last = _conv_norm(sketch, 32, "input0", 3)
    width = 32
    for expansion, channels, blocks, first_stride in INVERTED_BLOCKS:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            hidden = _conv_norm(sketch, expansion * width, last, 1) if expansion > 1 else last
            hidden = _conv_norm(sketch, expansion * width, hidden, 3, stride, groups=expansion * width)
            made = _conv_norm(sketch, channels, hidden, 1, activate=False)
            last = sketch.add("add", Add(), made, last) if stride == 1 and channels == width else made
            width = channels
    _conv_norm(sketch, 1280, last, 1)
    sketch.add("pool", GlobalPool("avg"))
    sketch.add("flatten", Flatten())
    sketch.add("dropout", Dropout(0.2))
    return sketch.finish(num_classes)


def squeezenet(input_shape: Shape, num_classes: int) -> Genome:
    """SqueezeNet 1.1 (Iandola et al. 2016) of fire modules; its stem does not halve images under 64 x 64."""
    _check_maps("squeezenet", input_shape, 8)
    sketch = Sketch(input_shape)
    small = min(input_shape[1:]) < 64
    stem = Conv(64, (3, 3), (1, 1) if small else (2, 2), (1, 1) if small else (0, 0), bias=True)
    sketch.add("conv", stem)
    sketch.add("relu", Activation("relu"))
    last = sketch.add("pool", Pool((3, 3), "max", (2, 2), ceil_mode=True))
    for module in FIRE_MODULES:
        if module is None:
            last = sketch.add("pool", Pool((3, 3), "max", (2, 2), ceil_mode=True))
            continue
        squeezed = _conv_relu(sketch, module[0], last, 1)
        ends = [_conv_relu(sketch, module[1], squeezed, kernel) for kernel in (1, 3)]
        last = sketch.add("concat", Concat(), *ends)
    sketch.add("dropout", Dropout(0.5))
    _conv_relu(sketch, num_classes, "dropout" + str(len(sketch.nodes) - 1), 1)
    sketch.add("pool", GlobalPool("avg"))
    sketch.add("flatten", Flatten())
    sketch.add("output", Output())
    return Genome(tuple(sketch.nodes))


def binarynet(input_shape: Shape, num_classes: int) -> Genome:
    """BinaryNet (Courbariaux et al. 2016) at half its width: all convolutions but the first are binary.

    Strides take the place of its pooling, and the linear classifier, which is real, of its hidden layers.
    """
    _check_maps("binarynet", input_shape, 8)
    return binary_net(input_shape, num_classes, (64, 64, 128, 128, 256, 256), (1, 2, 1, 2, 1, 2))


def _conv_norm(
    sketch: Sketch,
    width: int,
    source: str,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activate: bool = True,
) -> str:
    """A convolution, its BatchNorm and perhaps a ReLU6."""
    conv = Conv(width, (kernel, kernel), (stride, stride), (kernel // 2, kernel // 2), groups=groups)
    sketch.add("conv", conv, source)
    last = sketch.add("norm", Norm())
    return sketch.add("relu", Activation("relu6")) if activate else last


def _conv_relu(sketch: Sketch, width: int, source: str, kernel: int) -> str:
    """A convolution with bias that keeps the extents, and its ReLU."""
    padding = (kernel // 2, kernel // 2)
    sketch.add("conv", Conv(width, (kernel, kernel), padding=padding, bias=True), source)
    return sketch.add("relu", Activation("relu"))


def _check_maps(name: str, input_shape: Shape, least: int) -> None:
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise ValueError(
            f"founder {name} reads images (channels, height, width) of at least {least} x {least}, "
            f"got inputs of shape {input_shape}"
        )


FOUNDERS: dict[str, FounderMaker] = {
    "minimal": minimal,
    "mlp": mlp,
    "lenet5": lenet5,
    "resnet20": resnet20,
    "resnet56": resnet56,
    "vgg19": vgg19,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet": squeezenet,
    "binarynet": binarynet,
}
"""Founders by name: each takes the input shape and the number of classes."""
