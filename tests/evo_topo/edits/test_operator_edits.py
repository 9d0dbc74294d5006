"""Factorise, Fuse and MergeLayers: which layers, at what cost."""

from collections import Counter

import pytest

from evo_topo.cost import count_flops, count_params
from evo_topo.edits import EditError, Factorise, Fuse, MergeLayers, legal_edits
from evo_topo.inheritance import inherit
from evo_topo.ops import Add, Conv, Norm
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, versatile


@pytest.mark.parametrize("name", EXAMPLES)
def test_legal_factors_and_merges_save_operations(name):
    genome = EXAMPLES[name]()
    for edit in legal_edits(genome, (Factorise, MergeLayers)):
        assert count_flops(edit.apply(genome)) < count_flops(genome), edit


def test_every_form_has_a_site():
    genome = versatile()
    forms = Counter(edit.form for edit in legal_edits(genome, (Factorise,)))
    assert set(forms) == {"reduce", "expand", "separable", "fire"}


def test_fire_module():
    net = Sketch(8, 6, 6)
    genome = net.end(net.relu(net.conv(net.input, 7, 3, stride=(2, 2), bias=True)))
    child = Factorise("conv1", "fire", 2).apply(genome)
    convs = [node.op for node in child.nodes if isinstance(node.op, Conv)]
    assert [(c.out_channels, c.kernel, c.stride, c.bias) for c in convs] == [
        (2, (1, 1), (1, 1), False),
        (3, (1, 1), (2, 2), True),
        (4, (3, 3), (2, 2), True),
    ]


def fusible(dims):
    """Every way in which two operations can become one, with biases, strides and groups."""
    net = Sketch(3, *[16] * dims)
    two = (2,) * dims
    x = net.conv(net.input, 6, 3, stride=two, bias=True)
    x = net.conv(x, 4, 1, stride=two, bias=True)  # after a window: strides multiply
    x = net.relu(x)
    x = net.conv(net.conv(x, 5, 1, bias=True), 6, 3, padding=(0,) * dims)  # with bias, without padding
    x = net.relu(x)
    x = net.conv(net.conv(x, 6, 1), 8, 3, groups=2, bias=True)  # before a window, without bias
    x = net.relu(x)
    x = net.conv(net.conv(x, 8, 3, groups=8, bias=True), 6, 1)  # depthwise and pointwise
    x = net.relu(x)
    x = net.relu(net.add(Norm(), net.conv(x, 6, 3, groups=3)))
    y, z = net.conv(x, 4, 3, bias=True), net.conv(x, 4, 1)
    w = net.conv(x, 4, 3, dilation=two, padding=two, bias=True)
    x = net.relu(net.add(Add(), y, z, w))
    return net.end(x)


@pytest.mark.parametrize("dims", [1, 2])
def test_every_way_to_fuse(dims):
    genome = fusible(dims)
    model, inputs = randomised(genome), random_inputs(genome)
    edits = list(legal_edits(genome, (Fuse,)))
    assert len(edits) == 7  # the dilated window holds the 1x1 too, but not the other window
    for edit in edits:
        assert relative_error(inherit(model, genome, edit)(inputs), model(inputs)) < 1e-12, edit
    for _ in range(8):
        edit = next(legal_edits(genome, (Fuse,)), None)
        if edit is not None:
            expected = model(inputs)
            model, genome = inherit(model, genome, edit), edit.apply(genome)
            assert relative_error(model(inputs), expected) < 1e-12
    assert next(legal_edits(genome, (Fuse,)), None) is None


def test_fusing_takes_factors_back():
    genome = versatile()
    model, inputs = randomised(genome), random_inputs(genome)
    for form in ("reduce", "expand", "separable"):
        edit = Factorise("conv10", form)
        middle, middle_model = edit.apply(genome), inherit(model, genome, edit)
        first, second = [node.name for node in middle.nodes if node.name not in genome.by_name]
        back = Fuse(first, second)
        child = back.apply(middle)
        assert (count_params(child), child.shapes["norm11"]) == (
            count_params(genome),
            genome.shapes["norm11"],
        )
        assert child.fingerprint == genome.fingerprint
        assert relative_error(inherit(middle_model, middle, back)(inputs), middle_model(inputs)) < 1e-12


def test_a_fire_module_has_at_most_as_many_channels_between_as_its_rows():
    net = Sketch(16, 6, 6)
    genome = net.end(net.relu(net.conv(net.input, 2, 3)))  # one output of one tap, one of nine
    inherit(randomised(genome), genome, Factorise("conv1", "fire", 10))
    with pytest.raises(EditError, match="1 to 10"):
        Factorise("conv1", "fire", 11).apply(genome)
