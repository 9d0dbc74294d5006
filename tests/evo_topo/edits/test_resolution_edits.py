"""Where strides move; that the weights fit and the function is as said, the contract tests."""

import pytest

from evo_topo.cost import count_flops
from evo_topo.edits import DownsampleEarlier, DownsampleLater, legal_edits
from evo_topo.genome import Genome
from evo_topo.inheritance import inherit
from evo_topo.ops import Add, Conv, Dropout
from evo_topo.units import NEW
from populations.founders import conv_net
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, replace_op, versatile


def strides(genome):
    return [node.op.stride[0] for node in genome.nodes if isinstance(node.op, Conv)]


@pytest.mark.parametrize("make", [*EXAMPLES.values(), versatile])
def test_the_resolution_goes_back_and_forth(make):
    genome = make()
    for edit in legal_edits(genome, (DownsampleEarlier,)):
        child = edit.apply(genome)
        assert count_flops(child) < count_flops(genome)
        assert DownsampleLater(edit.conv).apply(child) == genome


def test_a_map_that_is_pooled_globally_takes_a_new_stride():
    genome = conv_net((1, 28, 28), 10, (8, 8, 8, 8), (1, 2, 1, 1))
    child = DownsampleEarlier("conv10").apply(genome)
    assert strides(child) == [1, 2, 1, 2]
    assert child.shapes["relu12"] == (8, 7, 7)
    grandchild = DownsampleEarlier("conv7").apply(child)
    assert strides(grandchild) == [1, 2, 2, 1]
    assert strides(DownsampleLater("conv7").apply(grandchild)) == strides(child)


def test_a_gated_map_is_thinned_out_with_its_gate_as_it_is():
    net = Sketch(2, 8, 8)
    genome = net.end(net.conv(net.gate(net.conv(net.input, 4), 2), 4, stride=(2, 2)))
    child = DownsampleEarlier("conv1").apply(genome)
    assert child.shapes["conv1"] == (4, 4, 4)
    assert {node.name: node.op.stride for node in child.nodes if isinstance(node.op, Conv)} == {
        "conv1": (2, 2),
        "conv3": (1, 1),
        "conv5": (1, 1),
        "conv8": (1, 1),
    }


def test_all_readers_of_a_map_give_their_stride():
    net = Sketch(2, 8, 8)
    x = net.conv(net.input, 4)
    two = [net.conv(x, 4, stride=(2, 2)), net.conv(x, 4, stride=(2, 2))]
    genome = net.end(net.add(Add(), *two))
    assert strides(DownsampleEarlier("conv1").apply(genome)) == [2, 1, 1]


@pytest.mark.parametrize(("stride", "kept"), [((2, 2), [0, 2, 8, 10]), ((1, 2), [0, 2, 4, 6, 8, 10])])
def test_a_flat_map_is_thinned_out_with_the_weights_of_the_places_that_stay(stride, kept):
    net = Sketch(1, 3, 4)
    genome = net.finish(net.linear(net.add(Dropout(0.1), net.flat(net.relu(net.conv(net.input, 2)))), 3))
    earlier, later = DownsampleEarlier("conv1"), DownsampleLater("conv1")
    if stride == (2, 2):
        child = earlier.apply(genome)
        origins = earlier.channel_map(genome)
        assert origins["dropout4"] == origins["flatten3"] == [*kept, *(12 + place for place in kept)]
        assert later.apply(child) == genome
    strided = with_stride(genome, stride)
    model, inputs = randomised(strided), random_inputs(strided)
    grown = inherit(model, strided, later)
    assert later.apply(strided) == genome
    assert [
        place for place, origin in enumerate(later.channel_map(strided)["flatten3"][:12]) if origin != NEW
    ] == kept
    assert relative_error(grown(inputs), model(inputs)) < 1e-12


def with_stride(genome, stride):
    nodes = [replace_op(n, stride=stride) if isinstance(n.op, Conv) else n for n in genome.nodes]
    return Genome(tuple(nodes))
