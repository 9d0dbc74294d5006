from operator import getitem

import pytest
import torch
from hypothesis import given
from torch.fx import Interpreter

from evo_topo.cost import (
    BOPS_PER_MAC,
    activation_bytes,
    count_bops,
    count_flops,
    count_macs,
    count_params,
    node_bops,
    node_macs,
    parameter_bits,
    unit_macs,
)
from evo_topo.edits import Binarise, EditError, PruneConnections, PruneUnits
from evo_topo.ops import Linear
from evo_topo.phenotype import build
from evo_topo.units import mixes_units, unit_table
from tests.reference import counted_flops, random_inputs
from tests.strategies import EXAMPLES, Sketch, genomes, resnet


@given(genome=genomes())
def test_flops_are_those_that_torch_counts(genome):
    assert count_flops(genome) == counted_flops(genome)
    assert count_flops(genome) == 2 * count_macs(genome) == 2 * sum(node_macs(genome).values())


@given(genome=genomes())
def test_params_are_those_of_the_module(genome):
    assert count_params(genome) == sum(p.numel() for p in build(genome).parameters())


class Meter(Interpreter):
    """Adds up the sizes of all tensors that a forward pass makes."""

    bytes_made = 0

    def run_node(self, node):
        value = super().run_node(node)
        adds_extents = node.target is getitem and None in node.args[1]  # a view of a vector
        if node.op != "output" and not adds_extents:
            self.bytes_made += value.numel() * value.element_size()
        return value


@given(genome=genomes())
def test_activation_bytes_are_those_of_a_forward_pass(genome):
    meter = Meter(build(genome).eval())
    meter.run(random_inputs(genome, batch=1).float())
    assert activation_bytes(genome) == meter.bytes_made
    assert activation_bytes(genome, 2) * 2 == meter.bytes_made


def test_known_costs():
    genome = resnet()
    assert count_params(genome) == 272_474
    assert count_macs(genome) == 40_813_184


@pytest.mark.parametrize("name", EXAMPLES)
def test_unit_macs_are_what_a_prune_saves(name):
    genome = EXAMPLES[name]()
    table = unit_table(genome)
    slack = len(node_bops(genome))  # which round up to whole MACs
    for group, prices in unit_macs(genome).items():
        both = any(
            mixes_units(genome.by_name[maker])
            and group in {m[0] for m in table.members[genome.by_name[maker].inputs[0]] if m}
            for maker in table.groups[group].makers
        )
        for unit, price in enumerate(prices):
            try:
                child = PruneUnits(((group, (unit,)),)).apply(genome)
            except EditError:
                continue
            saved = count_macs(genome) - count_macs(child)
            assert abs(price - saved) <= slack + 1e-9 * saved or (both and price > saved * (1 - 1e-9))


def test_masked_weights_cost_nothing():
    net = Sketch(2, 5, 5)
    x = net.conv(net.input, 6, fan_in=7, stride=(2, 2))
    genome = net.finish(net.add(Linear(3, fan_in=10), net.flat(x)))
    assert node_macs(genome) == {
        **dict.fromkeys(genome.by_name, 0),
        "conv1": 6 * 7 * 3 * 3,
        "linear3": 3 * 10,
    }
    assert count_params(genome) == 6 * 18 + 3 * 54 + 3
    assert parameter_bits(genome) == 32 * (6 * 7 + 3 * 10 + 3)


def test_binary_operations_are_a_64th_of_a_mac():
    net = Sketch(2, 5, 5)
    x = net.conv(net.conv(net.input, 6, bias=True), 7, bias=True, binary=True)
    genome = net.end(x)
    bops = 7 * (6 * 9) * 25
    assert count_bops(genome) == bops == 9450
    assert BOPS_PER_MAC == 64
    assert count_macs(genome) == 6 * 2 * 9 * 25 + 148 + 7 * 3
    assert count_flops(genome) == 2 * count_macs(genome)
    assert counted_flops(genome) == 2 * (6 * 2 * 9 * 25 + bops + 7 * 3)  # as torch emulates them
    assert parameter_bits(genome) == 7 * 6 * 9 + 32 * (7 + 7 + 6 * 19 + 3 * 8)
    assert parameter_bits(genome, 16) == 7 * 6 * 9 + 16 * (7 + 7 + 6 * 19 + 3 * 8)


@pytest.mark.parametrize("layer", ["conv4", "conv14"])
def test_binarising_and_thinning_out_pay(layer):
    genome = resnet((8, 8), 1, 8)
    for edit in (Binarise(layer), PruneConnections(layer)):
        child = edit.apply(genome)
        assert count_flops(child) < count_flops(genome)
        assert parameter_bits(child) < parameter_bits(genome) == 32 * count_params(genome)


def test_costs_of_a_large_genome_build_nothing(monkeypatch):
    def build_nothing(*_):
        raise AssertionError("a tensor was made")

    monkeypatch.setattr(torch.Tensor, "__new__", build_nothing)
    assert count_macs(resnet((512, 1024, 2048), 3, 224)) > 1e12
