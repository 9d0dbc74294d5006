import pytest
import torch
from torch import nn

from evo_topo.edits import AddUnits, legal_edits
from evo_topo.inheritance import Probe, inherit
from evo_topo.ops import Flatten, Pool
from evo_topo.phenotype import build
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, perceptron, resnet


def probe_of(genome, examples=32):
    return Probe(random_inputs(genome, examples, 5), torch.arange(examples) % genome.num_classes)


def deep_linear():
    net = Sketch(6)
    return net.finish(net.linear(net.linear(net.linear(net.input, 5), 4), 3))


def strided():
    net = Sketch(3, 9, 9)
    x = net.conv(net.input, 4, 3, stride=(2, 2), bias=True)
    x = net.conv(x, 5, 3, dilation=(2, 2), padding=(2, 2))
    return net.end(x)


def pointwise():
    net = Sketch(3, 9, 7)
    x = net.conv(net.input, 4, 1, stride=(2, 3), bias=True)
    return net.end(net.conv(x, 5, 1, stride=(1, 2)))


def pooled():
    net = Sketch(2, 8, 8)
    x = net.add(Pool((2, 2), "avg"), net.conv(net.input, 4, 3))
    return net.end(net.conv(x, 5, 3, stride=(2, 1)))


def series():
    net = Sketch(2, 9)
    x = net.conv(net.input, 4, 5, stride=(2,))
    return net.end(net.conv(x, 5, 3))


def flattened():
    net = Sketch(2, 4, 4)
    return net.finish(net.linear(net.add(Flatten(), net.conv(net.input, 4, 3)), 3))


LINEAR = {make.__name__: make for make in (deep_linear, strided, pointwise, pooled, series, flattened)}
"""Networks with nothing but linear operations, in which the promised gradient is exact."""


def first_layer(genome):
    return genome.nodes[1].name


def outgoing_gradient(model, genome, edit, rows, probe):
    """Norm of the gradient of a new unit's outgoing weights when it has the given incoming ones."""
    child_model = inherit(model, genome, edit)
    layer = child_model.get_submodule(edit.group)
    with torch.no_grad():
        layer.weight[-1:] = rows
        if layer.bias is not None:
            layer.bias[-1] = 0
    nn.functional.cross_entropy(child_model(probe.inputs), probe.targets).backward()
    reader = next(n for n in edit.apply(genome).nodes[2:] if n.name + ".weight" in child_model.state_dict())
    gradient = child_model.get_submodule(reader.name).weight.grad
    taps = 16 if isinstance(genome.nodes[2].op, Flatten) else 1
    return gradient[:, -taps:].norm() if taps > 1 else gradient[:, -1].norm()


@pytest.mark.parametrize("name", LINEAR)
def test_gradmax_gives_the_outgoing_weights_the_largest_gradient(name):
    genome = LINEAR[name]()
    model, probe = randomised(genome), probe_of(genome)
    edit = AddUnits(first_layer(genome))
    found = inherit(model, genome, edit, probe).get_submodule(edit.group).weight.detach()[-1:]
    old = model.get_submodule(edit.group).weight.flatten(1)
    assert torch.isclose(found.norm(), old.norm(dim=1).mean())
    largest = outgoing_gradient(model, genome, edit, found, probe)
    for seed in range(30):
        other = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed)).double()
        other *= found.norm() / other.norm()
        assert outgoing_gradient(model, genome, edit, other, probe) < largest
    nudged = found + 1e-3 * other
    nudged *= found.norm() / nudged.norm()
    difference = outgoing_gradient(model, genome, edit, nudged, probe) / largest - 1
    assert -1e-4 < difference < 1e-12  # at a maximum: of second order in the nudge


def test_directions_of_several_units_are_the_leading_ones():
    genome = deep_linear()
    model, probe = randomised(genome), probe_of(genome)
    made = model.get_submodule("linear2")
    logits = model(probe.inputs)
    gradient = torch.autograd.grad(nn.functional.cross_entropy(logits, probe.targets), logits)[0]
    gradient = gradient @ model.get_submodule("linear3").weight.detach()
    covariance = sum(torch.outer(g, x) for g, x in zip(gradient, probe.inputs, strict=True))
    _, expected = torch.linalg.eigh(covariance.T @ covariance)
    edit = AddUnits("linear1", 3)
    rows = inherit(model, genome, edit, probe).get_submodule("linear1").weight.detach()[-3:]
    rows = rows / rows.norm(dim=1, keepdim=True)
    assert made.weight.shape == (4, 5)
    cosines = (rows * expected.flip(1).T[:3]).sum(1).abs()
    assert torch.allclose(cosines[:2], torch.ones(2).double())  # the gradients of three classes span two


def test_tiny_takes_the_largest_decrease_that_the_weights_cannot_make():
    """It maximises ||E[r (w x)]||^2 / E[(w x)^2], with r what a regression leaves of the gradient."""
    genome = deep_linear()
    model, probe = randomised(genome), probe_of(genome, 200)
    edit = AddUnits("linear1", directions="tiny")
    found = inherit(model, genome, edit, probe).get_submodule("linear1").weight.detach()[-1]
    hidden = model.get_submodule("linear1")(probe.inputs)
    logits = model(probe.inputs)
    gradient = torch.autograd.grad(nn.functional.cross_entropy(logits, probe.targets), logits)[0]
    gradient = gradient @ model.get_submodule("linear3").weight.detach()
    hidden = hidden.detach()
    rest = gradient - hidden @ torch.linalg.lstsq(hidden, gradient).solution

    def decrease(direction):
        output = probe.inputs @ direction
        return (rest.T @ output).square().sum() / output.square().mean()

    largest = decrease(found)
    generator = torch.Generator().manual_seed(0)
    others = [torch.randn(6, generator=generator).double() for _ in range(200)]
    assert max(map(decrease, others)) < 1.001 * largest
    gradmax = inherit(model, genome, AddUnits("linear1"), probe).get_submodule("linear1").weight.detach()[-1]
    assert decrease(gradmax) < 0.99 * largest


@pytest.mark.parametrize("directions", ["gradmax", "tiny", "random"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_new_units_change_nothing_with_a_probe_either(name, directions):
    genome = EXAMPLES[name]()
    model, inputs, probe = randomised(genome), random_inputs(genome), probe_of(genome)
    for site in legal_edits(genome, (AddUnits,)):
        edit = AddUnits(site.group, 2, directions, seed=3)
        child_model = inherit(model, genome, edit, probe)
        assert relative_error(child_model(inputs), model(inputs)) < 1e-10
        assert all(torch.isfinite(value).all() for value in child_model.state_dict().values())
        assert all(p.requires_grad and p.grad is None for p in child_model.parameters())
        assert all(not module._forward_hooks for module in model.modules())


def test_channels_of_new_units_are_normalised_and_the_others_kept():
    genome = resnet((4, 6), 1, 8)
    model, probe = randomised(genome), probe_of(genome)
    child_model = inherit(model, genome, AddUnits("conv1", 2), probe)
    norm, old = child_model.get_submodule("norm2"), model.get_submodule("norm2")
    assert torch.equal(norm.running_mean[:4], old.running_mean)
    assert torch.equal(norm.weight[:4], old.weight)
    values = norm(child_model.get_submodule("conv1")(probe.inputs))[:, 4:]
    variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
    assert mean.abs().max() < 1e-10
    assert (variance - 1).abs().max() < 1e-3  # eps of the norm


def test_without_a_probe_directions_are_random_and_follow_the_seed():
    genome = perceptron()
    model = build(genome)
    first, again, other = (
        inherit(model, genome, AddUnits("linear1", 1, "tiny", seed)).get_submodule("linear1").weight[-1]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.abs().max() > 0


def test_new_units_learn():
    """Their gradient is zero at first only for what comes in."""
    genome = perceptron()
    model, probe = randomised(genome), probe_of(genome)
    child_model = inherit(model, genome, AddUnits("linear1", 1), probe)
    nn.functional.cross_entropy(child_model(probe.inputs), probe.targets).backward()
    assert child_model.get_submodule("linear7").weight.grad[:, -1].abs().max() > 0
    assert not child_model.get_submodule("linear1").weight.grad[-1].any()
