"""Genomes and edits to test with: named examples, and hypothesis strategies that draw any topology."""

import random
from functools import cache
from itertools import islice
from math import prod
from typing import get_args

from hypothesis import assume
from hypothesis import strategies as st
from msgspec.structs import replace

from evo_topo.edits import KINDS, legal_edits, random_edit
from evo_topo.genome import Genome, Node
from evo_topo.ops import (
    Activation,
    ActivationFunction,
    AdaptivePool,
    Add,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    Multiply,
    Norm,
    Output,
    Pad,
    Pool,
    Scale,
    Select,
)

MAX_CHANNELS = 12
MAX_FEATURES = 48


class Sketch:
    """A genome in the making: each method adds nodes and returns the name of the last one."""

    def __init__(self, *input_shape):
        self.nodes, self.shapes = [], {}
        self.input = self.add(Input(input_shape))

    def add(self, op, *reads):
        name = f"{type(op).__name__.lower()}{len(self.nodes)}"
        self.nodes.append(Node(name, op, reads))
        self.shapes[name] = op.infer(tuple(self.shapes[read] for read in reads))
        return name

    def conv(self, read, width, kernel=3, **settings):
        dims = len(self.shapes[read]) - 1
        settings.setdefault("padding", (kernel // 2,) * dims)
        return self.add(Conv(width, (kernel,) * dims, **settings), read)

    def linear(self, read, width):
        return self.add(Linear(width), read)

    def unit(self, read, width, kernel=3, **settings):
        """Convolution, normalisation, activation."""
        return self.relu(self.add(Norm(), self.conv(read, width, kernel, **settings)))

    def relu(self, read):
        return self.add(Activation("relu"), read)

    def flat(self, read):
        return read if len(self.shapes[read]) == 1 else self.add(Flatten(), read)

    def gate(self, read, squeezed):
        """Squeeze-and-excitation."""
        width = self.shapes[read][0]
        hidden = self.relu(self.conv(self.add(GlobalPool(), read), squeezed, 1, bias=True))
        gate = self.add(Activation("sigmoid"), self.conv(hidden, width, 1, bias=True))
        return self.add(Multiply(), read, gate)

    def end(self, read, classes=3):
        """Global pooling where there is something to pool, then the classifier."""
        if len(self.shapes[read]) > 1:
            read = self.flat(self.add(GlobalPool(), read))
        return self.finish(self.linear(read, classes))

    def finish(self, read):
        self.add(Output(), read)
        return Genome(tuple(self.nodes))


def resnet(widths=(16, 32, 64), blocks=3, side=32):
    """CIFAR ResNet; the default is ResNet-20."""
    net = Sketch(3, side, side)
    x = net.unit(net.input, widths[0])
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = (2, 2) if stage and not block else (1, 1)
            y = net.add(Norm(), net.conv(net.unit(x, width, stride=stride), width))
            if net.shapes[x] != net.shapes[y]:
                x = net.add(Norm(), net.conv(x, width, 1, stride=stride))
            x = net.relu(net.add(Add(), x, y))
    return net.end(x, 10)


def dense():
    net = Sketch(2, 6, 6)
    x = net.unit(net.input, 4)
    for _ in range(3):
        x = net.add(Concat(), x, net.unit(x, 3))
    return net.end(x)


def squeeze_excitation():
    net = Sketch(3, 6, 6)
    x = net.unit(net.input, 6)
    y = net.gate(net.unit(net.unit(x, 12, 1), 12, groups=12), 3)
    return net.end(net.add(Add(), x, net.conv(y, 6, 1)))


def one_dimensional():
    net = Sketch(2, 16)
    x = net.add(Pool((2,)), net.unit(net.input, 6, 5))
    y = net.add(Dropout(0.2), net.unit(x, 8, stride=(2,)))
    return net.finish(net.linear(net.relu(net.linear(net.flat(y), 10)), 4))


def perceptron():
    net = Sketch(5)
    x = net.relu(net.linear(net.input, 7))
    y = net.relu(net.add(Norm(), net.linear(x, 7)))
    return net.finish(net.linear(net.add(Add(), x, y), 3))


def concat_added():
    """Add(concat(x, y), z), and z also concatenated behind x."""
    net = Sketch(2, 4, 4)
    x, y, z = (net.unit(net.input, width) for width in (2, 3, 5))
    total = net.add(Add(), net.add(Concat(), x, y), z)
    return net.end(net.unit(net.add(Concat(), x, total), 4))


def concat_swapped():
    """Add(concat(x, y), concat(y, x)) ties units across unequal halves."""
    net = Sketch(2, 4, 4)
    x, y, z = (net.unit(net.input, width) for width in (4, 2, 3))
    total = net.add(Add(), net.add(Concat(), x, y), net.add(Concat(), y, x))
    return net.end(net.add(Concat(), total, z))


def concat_twice():
    """Concat(x, x) and concat(x, relu(x)) read and added onto another convolution."""
    net = Sketch(2, 4, 4)
    x = net.conv(net.input, 3)
    twice = net.add(Concat(), x, x)
    again = net.add(Concat(), x, net.relu(x))
    free = net.unit(twice, 4)
    tied = net.add(Add(), again, net.conv(net.unit(net.input, 4), 6))
    return net.end(net.add(Concat(), free, tied))


def concat_single():
    """One unit twice in a row in the tensor that concat(x, x) is tied to."""
    net = Sketch(2, 4, 4)
    x = net.conv(net.input, 1)
    return net.end(net.unit(net.add(Add(), net.add(Concat(), x, x), net.conv(net.input, 2)), 3))


def squares():
    """Add(x, x) and Multiply(x, x)."""
    net = Sketch(2, 4, 4)
    x = net.unit(net.input, 3)
    return net.end(net.add(Add(), net.add(Multiply(), x, x), net.add(Add(), x, x, x)))


def grouped():
    """Grouped convolutions of unequal block sizes, one fed by a concat of unequal parts."""
    net = Sketch(2, 4, 4)
    x, y = net.unit(net.input, 3), net.unit(net.input, 5)
    mixed = net.unit(net.add(Concat(), x, y), 12, groups=4)
    z = net.unit(net.unit(net.input, 8), 12, groups=4)
    return net.end(net.add(Concat(), mixed, net.unit(z, 6, groups=2)))


def grouped_across():
    """A block that holds one channel of either part of a concat, and makes one."""
    net = Sketch(2, 4, 4)
    x, y = net.unit(net.input, 3), net.unit(net.input, 5)
    return net.end(net.unit(net.add(Concat(), x, y), 4, groups=4))


def grouped_residual():
    """A grouped convolution added onto what it reads, and a depthwise one with a multiplier."""
    net = Sketch(2, 4, 4)
    x = net.unit(net.input, 6)
    x = net.add(Add(), x, net.unit(x, 6, groups=3))
    y = net.unit(net.unit(x, 5, 1), 10, groups=5)
    return net.end(net.conv(y, 3, 1))


def depthwise():
    net = Sketch(2, 4, 4)
    x = net.unit(net.unit(net.input, 3), 3, groups=3)
    return net.end(net.unit(x, 4, 1))


def mobile():
    """A depthwise convolution with a channel multiplier."""
    net = Sketch(2, 4, 4)
    return net.end(net.unit(net.unit(net.unit(net.input, 4), 8, groups=4), 3, 1))


def flat_tied():
    """A flattened tensor tied to a linear layer by Add, and flattened channels beside it."""
    net = Sketch(2, 2, 3)
    x, y = net.unit(net.input, 3), net.unit(net.input, 2)
    flat = net.add(Add(), net.flat(x), net.linear(net.flat(y), 18))
    ends = net.add(Concat(), flat, net.flat(net.add(Pool((1, 3)), y)))
    return net.finish(net.linear(net.relu(ends), 3))


def flat_unequal():
    """Features of 2 channels x 3 tied to those of 3 channels x 2."""
    net = Sketch(2, 6)
    x = net.flat(net.unit(net.add(Pool((2,)), net.input), 2))
    y = net.flat(net.unit(net.add(Pool((3,)), net.input), 3))
    return net.finish(net.linear(net.add(Add(), x, y), 3))


def partly_fixed():
    """Channels added onto the input are fixed, their neighbours in the same tensor are free."""
    net = Sketch(2, 4, 4)
    y = net.unit(net.input, 3)
    z = net.conv(y, 5)
    return net.end(net.add(Add(), net.add(Concat(), net.input, y), z))


def sparse():
    """Sparse layers of every kind, each reading what a sparse layer makes."""
    net = Sketch(2, 4, 4)
    x = net.unit(net.input, 4, fan_in=5)
    y = net.unit(net.unit(x, 4, groups=4, fan_in=4), 4, 1, fan_in=2)
    z = net.unit(net.add(Add(), x, y), 4, groups=2, fan_in=11, bias=True)
    hidden = net.add(Linear(5, fan_in=7), net.flat(net.add(Pool((2, 2)), z)))
    return net.finish(net.add(Linear(3, fan_in=4), net.relu(hidden)))


def binary():
    """Binary layers of every kind, with and without a bias, and a residual connection around one."""
    net = Sketch(2, 4, 4)
    x = net.unit(net.input, 4)
    x = net.add(Add(), x, net.unit(x, 4, binary=True))
    y = net.unit(x, 5, stride=(2, 2), bias=True, binary=True)
    z = net.unit(y, 10, groups=5, binary=True)
    hidden = net.add(Norm(), net.add(Linear(6, binary=True), net.flat(z)))
    return net.finish(net.linear(net.add(Linear(5, bias=False, binary=True), hidden), 3))


def versatile(width=6):
    """A residual network in which every kind of edit has a site: one layer of it is sparse, one binary."""
    net = Sketch(3, 8, 8)
    x = net.unit(net.unit(net.input, width), width, stride=(2, 2))
    y = net.add(Norm(), net.conv(net.unit(x, width, fan_in=9), width))
    x = net.relu(net.add(Add(), x, y))
    return net.end(net.unit(net.unit(x, width, stride=(2, 2)), width, binary=True), 10)


def replace_op(node, **settings):
    return Node(node.name, replace(node.op, **settings), node.inputs)


def strided():
    """A stride on both readers of a sum, between pixelwise nodes, and one that was taken earlier."""
    net = Sketch(2, 8, 8)
    x = net.unit(net.input, 3)
    x = net.add(Activation("silu"), net.add(Add(), net.conv(x, 4, bias=True), net.conv(x, 4, 1)))
    y = net.add(Add(), net.unit(x, 5, stride=(2, 2)), net.conv(x, 5, 1, stride=(2, 2)))
    return net.end(net.unit(net.unit(y, 4, 3, stride=(2, 1)), 3))


def shuffled():
    """A ShuffleNet unit: one half of the channels passes by, then both are interleaved."""
    net = Sketch(2, 4, 4)
    x = net.unit(net.input, 8)
    kept, read = (net.add(Select(tuple(range(start, start + 4))), x) for start in (0, 4))
    y = net.unit(net.unit(net.unit(read, 4, 1), 4, groups=4), 4, 1)
    both = net.add(Concat(), kept, y)
    z = net.add(Select((0, 4, 1, 5, 2, 6, 3, 7)), both)
    return net.end(net.add(Add(), net.unit(z, 8), z))


def selected():
    """Selections that repeat, reverse and overlap, of joined, grouped and flattened channels."""
    net = Sketch(2, 2, 2)
    x, y = net.unit(net.input, 6), net.unit(net.input, 3)
    twice = net.unit(net.add(Select((0, 0, 3, 5)), x), 4)
    blocks = net.add(Select((5, 4, 3, 2, 1, 0)), net.unit(x, 6, groups=3))
    mixed = net.add(Select((7, 2, 8)), net.add(Concat(), x, y))
    flat = net.add(Select((3, 2, 1, 0, 7, 6, 5, 4)), net.flat(net.conv(mixed, 2)))
    ends = [net.flat(net.add(GlobalPool(), name)) for name in (twice, blocks)]
    return net.finish(net.linear(net.add(Concat(), *ends, net.relu(flat)), 3))


def vector_gate():
    """Squeeze-and-excitation with linear layers, and constants beside it."""
    net = Sketch(2, 4, 4)
    x = net.unit(net.input, 4)
    squeezed = net.relu(net.linear(net.flat(net.add(GlobalPool(), x)), 2))
    gate = net.add(Activation("sigmoid"), net.linear(squeezed, 4))
    y = net.add(Scale(0.5, -1.0), net.add(Multiply(), gate, x))
    return net.end(net.add(Add(), net.add(Pad((1, -1), (-1, 1)), x), y))


EXAMPLES = {
    make.__name__: make
    for make in (
        shuffled,
        selected,
        vector_gate,
        dense,
        squeeze_excitation,
        one_dimensional,
        perceptron,
        concat_added,
        concat_swapped,
        concat_twice,
        concat_single,
        squares,
        grouped,
        grouped_across,
        grouped_residual,
        depthwise,
        mobile,
        flat_tied,
        flat_unequal,
        partly_fixed,
        sparse,
        binary,
        strided,
        versatile,
    )
} | {"small_resnet": lambda: resnet((4, 6), 1, 8)}
"""Small genomes, by what is special about them."""


@st.composite
def genomes(draw, dims=None, max_steps=8):
    """Valid genomes of any topology; `dims` is the number of spatial dimensions."""
    dims = draw(st.sampled_from([2, 1, 2, 0])) if dims is None else dims
    extents = [draw(st.integers(2, 6)) for _ in range(dims)]
    net = Sketch(draw(st.integers(1, 3)), *extents)
    first = net.linear(net.input, 4) if not dims else net.conv(net.input, draw(st.integers(2, 6)))
    net.relu(first if draw(st.booleans()) else net.add(Norm(), first))
    for _ in range(draw(st.integers(1, max_steps))):
        read = draw(st.sampled_from([node.name for node in net.nodes[-6:]]))
        flat = len(net.shapes[read]) == 1
        draw(st.sampled_from(_ANYWHERE + (_ON_FEATURES if flat else _ON_MAPS)))(draw, net, read)
    return net.finish(net.linear(_gathered(draw, net), draw(st.integers(2, 3))))


@st.composite
def marked_genomes(draw):
    """Genomes of any topology in which each layer may be sparse or binary."""
    genome = draw(genomes())
    return Genome(tuple([draw(_marks(genome, node)) for node in genome.nodes]))


def _marks(genome, node):
    if not isinstance(node.op, Conv | Linear):
        return st.just(node)
    dense = node.op.dense_fan_in(genome.shapes[node.inputs[0]][0])
    fan_ins = [replace_op(node, fan_in=n) for n in {1, dense // 2, dense - 1} if 0 < n < dense]
    return st.sampled_from([node, replace_op(node, binary=True), *fan_ins])


def _gathered(draw, net):
    """All that no node reads yet, as one feature vector."""
    read = {name for node in net.nodes for name in node.inputs}
    ends = []
    for name in [node.name for node in net.nodes if node.name not in read]:
        if len(net.shapes[name]) > 1 and (prod(net.shapes[name]) > MAX_FEATURES or draw(st.booleans())):
            name = net.add(GlobalPool(draw(st.sampled_from(["avg", "max"]))), name)
        ends.append(net.flat(name))
    return ends[0] if len(ends) == 1 else net.add(Concat(), *ends)


def _carry(draw, net, read):
    functions = st.sampled_from(get_args(ActivationFunction)).map(Activation)
    others = st.sampled_from([Norm(), Dropout(0.3), Scale(0.5, 0.25), Activation("leaky_relu", 0.2)])
    net.add(draw(st.one_of(functions, others)), read)


def _layer(draw, net, read):
    """A layer of the width it reads, so that it can be bypassed."""
    width = net.shapes[read][0]
    if len(net.shapes[read]) == 1:
        net.relu(net.linear(read, min(width, MAX_CHANNELS)))
    else:
        net.unit(read, min(width, MAX_CHANNELS), draw(st.sampled_from([1, 3])))


def _combine(draw, net, read):
    """Sums or multiplies with itself, its like, or a layer made to fit."""
    shape = net.shapes[read]
    like = [name for name in net.shapes if net.shapes[name] == shape]
    others = [draw(st.sampled_from(like)) for _ in range(draw(st.integers(1, 2)))]
    if draw(st.booleans()):
        others[0] = net.linear(read, shape[0]) if len(shape) == 1 else net.conv(read, shape[0], 3, bias=True)
    net.add(draw(st.sampled_from([Add(), Multiply()])), *draw(st.permutations([read, *others])))


def _join(draw, net, read):
    shape, most = net.shapes[read], MAX_CHANNELS if len(net.shapes[read]) > 1 else MAX_FEATURES
    fits = [n for n, s in net.shapes.items() if s[1:] == shape[1:] and len(s) == len(shape)]
    other = draw(st.sampled_from(fits))
    if shape[0] + net.shapes[other][0] <= most:
        joined = net.add(Concat(), *draw(st.permutations([read, other])))
        if draw(st.booleans()):
            _combine(draw, net, joined)


def _features(draw, net, read):
    net.linear(read, draw(st.integers(1, MAX_CHANNELS)))


def _convolve(draw, net, read):
    dims = len(net.shapes[read]) - 1
    stride = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    kernel = draw(st.sampled_from([1, 3]))
    dilation = (draw(st.integers(1, 2)),) * dims
    net.conv(
        read,
        draw(st.integers(1, MAX_CHANNELS)),
        kernel,
        stride=stride,
        bias=draw(st.booleans()),
        dilation=dilation,
        padding=tuple(kernel // 2 * d for d in dilation),
    )


def _group(draw, net, read):
    """Depthwise, with a multiplier, or grouped; the blocks it makes differ from those it reads."""
    width = net.shapes[read][0]
    if net.nodes[0].name == read or draw(st.booleans()):
        read = net.conv(read, width := draw(st.sampled_from([2, 4, 6, 8])))
    divisors = [g for g in range(1, width + 1) if width % g == 0]
    groups = draw(st.sampled_from(divisors))
    made = draw(st.sampled_from([n * groups for n in (1, 2, 3) if n * groups <= MAX_CHANNELS]))
    net.conv(read, made, draw(st.sampled_from([1, 3])), groups=groups, bias=draw(st.booleans()))


def _pool(draw, net, read):
    extents, mode = net.shapes[read][1:], draw(st.sampled_from(["max", "avg"]))
    if draw(st.integers(0, 3)) == 0:
        net.add(AdaptivePool(tuple(draw(st.integers(1, n + 1)) for n in extents), mode), read)
        return
    kernel = tuple(draw(st.integers(1, min(2, n))) for n in extents)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    net.add(Pool(kernel, mode, (), padding, draw(st.booleans()), draw(st.booleans())), read)


def _pad(draw, net, read):
    before, after = (tuple(draw(st.integers(0, 1)) for _ in net.shapes[read][1:]) for _ in range(2))
    grown = net.add(Pad(before, after), read)
    if draw(st.booleans()):
        net.add(Pad(tuple(-n for n in before), tuple(-n for n in after)), grown)


def _select(draw, net, read):
    width = net.shapes[read][0]
    channels = draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=MAX_CHANNELS))
    if draw(st.booleans()):
        channels = draw(st.permutations(range(min(width, MAX_CHANNELS))))
    chosen = net.add(Select(tuple(channels)), read)
    if draw(st.booleans()):
        _combine(draw, net, chosen)


def _gate(draw, net, read):
    if draw(st.booleans()):
        net.gate(read, draw(st.integers(1, 3)))
    else:
        gate = net.linear(net.flat(net.add(GlobalPool(), read)), net.shapes[read][0])
        net.add(Multiply(), *draw(st.permutations([read, gate])))


def _flatten(draw, net, read):
    """Flattens, and often ties the features to a linear layer."""
    size = prod(net.shapes[read])
    if size <= MAX_FEATURES:
        flat = net.flat(read)
        if draw(st.booleans()):
            net.add(Add(), *draw(st.permutations([flat, net.linear(flat, size)])))


_ANYWHERE = (_carry, _layer, _combine, _join, _select)
_ON_FEATURES = (_features,)
_ON_MAPS = (_convolve, _convolve, _group, _group, _pool, _pad, _gate, _flatten)


@st.composite
def genome_edits(draw, kind=None, of=None):
    """Pairs of a genome and an edit (of the given kind) that applies to it."""
    examples = examples_with(kind)
    genome = draw(of or st.one_of(genomes(), marked_genomes(), st.sampled_from(examples)))
    kinds = KINDS if kind is None else (kind,)
    if of is None and next(legal_edits(genome, kinds), None) is None:
        genome = draw(st.sampled_from(examples))
    rng = random.Random(draw(st.integers(0, 2**16)))
    edits = list(islice(legal_edits(genome, kinds), 30))
    assume(edits)
    return genome, draw(st.sampled_from(edits + [random_edit(genome, rng, kinds) for _ in range(5)]))


@cache
def examples_with(kind):
    """The named genomes to which an edit (of the given kind) applies."""
    kinds = KINDS if kind is None else (kind,)
    found = [make() for _, make in sorted(EXAMPLES.items())]
    return [genome for genome in found if next(legal_edits(genome, kinds), None) is not None]
