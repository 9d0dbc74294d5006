import pytest
import torch
from torch.nn.functional import cross_entropy

from evo_topo.edits import Debinarise, GrowConnections, PruneConnections, PruneUnits, SplitUnits
from evo_topo.inheritance import Probe, inherit
from evo_topo.inheritance.connections import kernel_gradient
from evo_topo.saliency import weight_obd
from tests.reference import random_inputs, randomised
from tests.strategies import Sketch, versatile


def chain(fan_in):
    net = Sketch(2, 4, 4)
    return net.end(net.conv(net.relu(net.conv(net.input, 6)), 3, fan_in=fan_in))


# Over 6 channels a unit of conv3 has 54 possible connections, 9 per channel.
RULES = {
    "a prune keeps the number": (20, PruneUnits((("conv1", (0, 2)),)), 20),
    "while there is room": (40, PruneUnits((("conv1", (0, 2, 3)),)), None),
    "just": (26, PruneUnits((("conv1", (0, 2, 3)),)), 26),
    "a split keeps the masked ones": (20, SplitUnits((("conv1", (0, 2)),)), 38),
    "a prune of outputs changes nothing": (20, PruneUnits((("conv3", (0,)),)), 20),
    "nor does a split of outputs": (20, SplitUnits((("conv3", (0,)),)), 20),
    "connections go": (20, PruneConnections("conv3", 19), 1),
    "from a dense layer": (None, PruneConnections("conv3", 14), 40),
    "and come back": (20, GrowConnections("conv3", 33), 53),
    "all of them": (20, GrowConnections("conv3", 34), None),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_number_of_connections_follows_a_rule(rule):
    before, edit, after = RULES[rule]
    assert edit.apply(chain(before)).by_name["conv3"].op.fan_in == after


def present(model, layer):
    return model.get_submodule(layer).mask.flatten(1)


def test_by_obd_the_smallest_saliencies_go():
    genome = versatile(8)
    model, probe = randomised(genome), random_inputs(genome, 8)
    child = inherit(model, genome, PruneConnections("conv7", 4), Probe(probe, torch.arange(8)))
    saliency = weight_obd(model, probe)["conv7.weight"].flatten(1)
    old, new = present(model, "conv7"), present(child, "conv7")
    assert (old & ~new).sum(1).tolist() == [4] * 8
    for unit in range(8):
        assert saliency[unit][old[unit] & ~new[unit]].max() <= saliency[unit][new[unit]].min()
    by_size = inherit(model, genome, PruneConnections("conv7", 4, "magnitude"), Probe(probe, torch.arange(8)))
    assert torch.equal(
        present(inherit(model, genome, PruneConnections("conv7", 4)), "conv7"), present(by_size, "conv7")
    )
    assert not torch.equal(present(by_size, "conv7"), new)


def test_the_largest_gradients_come_back():
    genome = versatile(8)
    model, probe, targets = randomised(genome), random_inputs(genome, 8), torch.arange(8)
    child = inherit(model, genome, GrowConnections("conv7", 5), Probe(probe, targets))
    gradient = kernel_gradient(model, "conv7", probe, targets).abs().flatten(1)
    old, new = present(model, "conv7"), present(child, "conv7")
    assert not (old & ~new).any()
    for unit in range(8):
        grown = new[unit] & ~old[unit]
        assert gradient[unit][grown].min() >= gradient[unit][~new[unit]].max()
    assert torch.equal(child.get_submodule("conv7").weight, model.get_submodule("conv7").weight)
    assert not torch.equal(present(inherit(model, genome, GrowConnections("conv7", 5)), "conv7"), new)


@pytest.mark.parametrize("layer", ["conv7", "conv4"])
def test_the_gradient_of_masked_weights_is_that_of_moving_them(layer):
    genome = Debinarise("conv17").apply(versatile(8))  # which has slopes of its own
    model, probe, targets = randomised(genome), random_inputs(genome, 3), torch.arange(3)
    found = kernel_gradient(model, layer, probe, targets)
    module, step = model.get_submodule(layer), 1e-6
    if layer == "conv7":
        module.mask.fill_(True)
    weight = module.weight.detach()
    for index in [(0, 0, 0, 0), (3, 2, 1, 0), (7, 7, 2, 2), (1, 4, 0, 2)]:
        losses = []
        for change in (step, -2 * step, step):
            weight[index] += change
            losses.append(cross_entropy(model(probe), targets).item())
        assert found[index].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-8)


def test_what_a_pruned_input_leaves_is_filled_with_zeros():
    genome = chain(20)
    model = randomised(genome)
    child = inherit(model, genome, PruneUnits((("conv1", (0, 2)),))).get_submodule("conv3")
    parent = model.get_submodule("conv3")
    assert torch.equal(child.weight, parent.weight[:, [1, 3, 4, 5]])
    assert child.mask.flatten(1).sum(1).tolist() == [20, 20, 20]
    assert (child.mask & (child.weight == 0)).any()
