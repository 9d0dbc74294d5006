"""Founders: the genomes that evolutions start from."""

from __future__ import annotations

from collections.abc import Sequence

from evo_topo.genome import Genome, Node
from evo_topo.ops import (
    Activation,
    Add,
    AnyOp,
    Conv,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    Norm,
    Output,
    Shape,
)


class Sketch:
    """A genome in the making: each call adds a node and returns its name.

    Args:
        input_shape: Shape of one example.
    """

    def __init__(self, input_shape: Shape) -> None:
        self.dims = len(input_shape) - 1
        self.nodes = [Node("input0", Input(input_shape))]

    def add(self, prefix: str, op: AnyOp, *inputs: str) -> str:
        """Adds an operation that reads the named nodes, or the last one where none is named."""
        name = f"{prefix}{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs or (self.nodes[-1].name,)))
        return name

    def conv_norm(self, width: int, source: str, kernel: int = 3, stride: int = 1) -> str:
        """A convolution that keeps the extents (divided by the stride), and its BatchNorm."""
        kernels, strides, paddings = [(size,) * self.dims for size in (kernel, stride, kernel // 2)]
        self.add("conv", Conv(width, kernels, strides, paddings), source)
        return self.add("norm", Norm())

    def conv_norm_relu(self, width: int, source: str, kernel: int = 3, stride: int = 1) -> str:
        """A convolution, its BatchNorm and a ReLU."""
        self.conv_norm(width, source, kernel, stride)
        return self.add("relu", Activation("relu"))

    def classify(self, num_classes: int, pooled: bool = True) -> Genome:
        """Ends the network with a linear classifier of the last map: of its means, or of every place."""
        if pooled:
            self.add("pool", GlobalPool("avg"))
        self.add("flatten", Flatten())
        return self.finish(num_classes)

    def finish(self, num_classes: int) -> Genome:
        """Ends the network with a linear classifier on the last feature vector."""
        self.add("linear", Linear(num_classes))
        self.add("output", Output())
        return Genome(tuple(self.nodes))


def conv_net(
    input_shape: Shape,
    num_classes: int,
    widths: Sequence[int],
    strides: Sequence[int],
    pooled: bool = True,
) -> Genome:
    """A chain of 3-wide convolutions with BatchNorm and ReLU, 1-D or 2-D.

    Args:
        input_shape: ``(channels, length)`` or ``(channels, height, width)``.
        num_classes: Number of classes.
        widths: Channels of each layer.
        strides: Stride of each layer.
        pooled: Whether the classifier reads the mean of each channel rather than its whole map, which says
            where something is, too.
    """
    sketch = Sketch(input_shape)
    last = "input0"
    for width, stride in zip(widths, strides, strict=True):
        last = sketch.conv_norm_relu(width, last, stride=stride)
    return sketch.classify(num_classes, pooled)


def residual_net(input_shape: Shape, num_classes: int, widths: Sequence[int], blocks: int) -> Genome:
    """A ResNet for small images (He et al. 2016, sec. 4.2): widths (16, 32, 64), 3 blocks = ResNet-20.

    The first block of every stage but the first halves the extents and has a 1 x 1 convolution on its
    shortcut.

    Args:
        input_shape: ``(channels, height, width)`` or ``(channels, length)``.
        num_classes: Number of classes.
        widths: Channels of each stage.
        blocks: Residual blocks per stage.
    """
    sketch = Sketch(input_shape)
    last = sketch.conv_norm_relu(widths[0], "input0")
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = sketch.conv_norm_relu(width, last, stride=stride)
            branch = sketch.conv_norm(width, inner)
            shortcut = last if stride == 1 else sketch.conv_norm(width, last, kernel=1, stride=2)
            sketch.add("add", Add(), branch, shortcut)
            last = sketch.add("relu", Activation("relu"))
    return sketch.classify(num_classes)


def perceptron(input_shape: Shape, num_classes: int, widths: Sequence[int]) -> Genome:
    """A chain of linear layers with BatchNorm and ReLU, for inputs of any shape.

    Args:
        input_shape: Shape of one example; flattened first where it has more than one extent.
        num_classes: Number of classes.
        widths: Features of each hidden layer.
    """
    sketch = Sketch(input_shape)
    if sketch.dims:
        sketch.add("flatten", Flatten())
    for width in widths:
        sketch.add("linear", Linear(width, bias=False))
        sketch.add("norm", Norm())
        sketch.add("relu", Activation("relu"))
    return sketch.finish(num_classes)
