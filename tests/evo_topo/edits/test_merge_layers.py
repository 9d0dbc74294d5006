"""MergeLayers: which layers, and where windows and strides come to lie."""

import pytest
import torch

from evo_topo.edits import MergeLayers, legal_edits
from evo_topo.inheritance import inherit
from evo_topo.ops import Conv, Dropout
from populations.founders import conv_net
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import Sketch


def test_a_chain_of_any_widths_and_strides_comes_down_to_one_layer():
    genome = conv_net((1, 28, 28), 10, (4, 6, 3, 5), (2, 1, 2, 1), pooled=False)
    convs = []
    while (edit := next(legal_edits(genome, (MergeLayers,)), None)) is not None:
        genome = edit.apply(genome)
        convs.append([node.op.stride for node in genome.nodes if isinstance(node.op, Conv)])
    assert convs[0] == [(2, 2), (2, 2), (1, 1)]
    assert convs[-1] == [(4, 4)]  # all 784 pixels would take more operations than the window and a few places


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 2, 1), (5, 1, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_behind_a_window_is_merged_exactly(dims, kernel, stride, padding, bias):
    net = Sketch(2, *[11] * dims)
    x = net.conv(net.input, 5, kernel, stride=(stride,) * dims, padding=(padding,) * dims, bias=True)
    genome = net.end(net.conv(net.add(Dropout(0.5), x), 3, 1, bias=bias))
    (first, second) = (node.name for node in genome.nodes if isinstance(node.op, Conv))
    model, inputs = randomised(genome), random_inputs(genome)
    assert relative_error(inherit(model, genome, MergeLayers(first, second))(inputs), model(inputs)) < 1e-12


@pytest.mark.parametrize("stride", [1, 2])
def test_a_linear_layer_takes_a_convolution_over_exactly(stride):
    net = Sketch(2, 6, 7)
    x = net.conv(net.input, 9, 3, stride=(stride, stride), bias=True)
    genome = net.finish(net.linear(net.flat(x), 3))
    model, inputs = randomised(genome), random_inputs(genome)
    edit = MergeLayers(x, "linear3")
    assert relative_error(inherit(model, genome, edit)(inputs), model(inputs)) < 1e-12


def test_the_middle_of_the_window_stays_where_it_is():
    """A lone pixel is seen where both layers in turn would see it, strides and lopsided paddings or not."""
    net = Sketch(1, 12)
    x = net.conv(net.input, 2, 3, stride=(2,), padding=(1,))
    genome = net.finish(net.linear(net.flat(net.relu(net.conv(x, 1, 3, padding=(1,), stride=(2,)))), 2))
    model = randomised(genome)
    for name in ("conv1", "conv2"):
        weight = model.get_submodule(name).weight.data
        weight.zero_()[..., 1] = 1.0  # the middle taps alone
    edit = MergeLayers("conv1", "conv2")
    child, child_model = edit.apply(genome), inherit(model, genome, edit)
    inputs = torch.eye(12, dtype=torch.float64).unsqueeze(1)
    assert child.shapes[edit.joint(genome)[1]] == genome.shapes["conv2"]
    assert relative_error(child_model(inputs), model(inputs)) < 1e-12
