"""What every kind of edit keeps: a new kind enters by being in `AnyEdit`, with a line in `reference.py`."""

import copy
import math
from itertools import islice
from math import prod
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.cost import activation_bytes, count_macs, count_params
from evo_topo.edits import (
    AnyEdit,
    Binarise,
    Debinarise,
    EditError,
    GrowConnections,
    PruneConnections,
    PruneLayer,
    PruneUnits,
    SplitLayer,
    SplitUnits,
    edit_from_json,
    legal_edits,
    legal_layer_edits,
)
from evo_topo.genome import Genome, Node
from evo_topo.inheritance import inherit
from evo_topo.ops import Activation, Conv, GlobalPool, Linear
from evo_topo.phenotype import build
from evo_topo.units import channel_origins, unit_table
from tests.reference import counted_flops, expected_output, random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, genome_edits, grouped, versatile

KINDS = get_args(AnyEdit)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@every_kind
@given(data=st.data())
def test_apply_is_pure(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    before = genome.to_json()
    child = edit.apply(genome)
    assert child == edit.apply(genome) == edit.apply(Genome.from_json(before))
    assert child != genome
    assert genome.to_json() == before


@every_kind
@given(data=st.data())
def test_child_and_edit_survive_json(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    child = edit.apply(genome)
    assert Genome.from_json(child.to_json()) == child
    assert edit_from_json(edit.to_json()) == edit
    assert edit.describe()


@every_kind
@given(data=st.data())
def test_unit_map_accounts_for_every_channel_of_the_child(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    child, unit_map = edit.apply(genome), edit.unit_map(genome)
    for group, units in unit_map.items():
        assert set(units) <= set(range(unit_table(genome).groups[group].width))
    for name, channels in channel_origins(genome, unit_map).items():
        if name in child.shapes:
            assert child.shapes[name] == (len(channels), *genome.shapes[name][1:])
            assert set(channels) <= set(range(genome.shapes[name][0]))


@every_kind
@given(data=st.data())
def test_child_computes_what_its_edit_promises(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    model, inputs = randomised(genome), random_inputs(genome)
    child_model = inherit(model, genome, edit)
    assert relative_error(child_model(inputs), expected_output(model, genome, edit, inputs)) < 1e-10


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_legal_edit_of_an_example_does_what_it_promises(name):
    genome = EXAMPLES[name]()
    model, inputs = randomised(genome), random_inputs(genome)
    for edit in legal_edits(genome):
        error = relative_error(
            inherit(model, genome, edit)(inputs), expected_output(model, genome, edit, inputs)
        )
        assert error < 1e-10, edit


@every_kind
@given(data=st.data())
def test_child_model_is_the_child_genome_and_costs_what_it_says(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    child, child_model = edit.apply(genome), inherit(build(genome), genome, edit)
    fresh = build(child).state_dict()
    assert {name: value.shape for name, value in child_model.state_dict().items()} == {
        name: value.shape for name, value in fresh.items()
    }
    assert sum(p.numel() for p in child_model.parameters()) == count_params(child)
    assert torch_macs(child, child_model) == count_macs(child)
    for node in child.nodes:
        if getattr(node.op, "fan_in", None):
            check_mask(child_model.get_submodule(node.name), node.op.fan_in)


def torch_macs(genome, model):
    """MACs as torch counts them, but for those of sparse and binary layers, counted one by one."""
    total = counted_flops(genome, model) // 2
    for node in genome.nodes:
        if isinstance(node.op, Conv | Linear):
            layer, positions = model.get_submodule(node.name), prod(genome.shapes[node.name][1:])
            dense = layer.weight.numel() * positions
            if node.op.fan_in:
                total += layer.mask.sum().item() * positions - dense
            elif node.op.binary:
                total += math.ceil(dense / 64) - dense
    return total


def check_mask(layer, fan_in):
    assert layer.mask.dtype == torch.bool
    assert set(layer.mask.flatten(1).sum(1).tolist()) == {fan_in}
    assert not layer.weight[~layer.mask].any()


@given(pair=genome_edits(PruneUnits))
def test_pruning_units_saves(pair):
    genome, edit = pair
    child = edit.apply(genome)
    assert count_params(child) < count_params(genome)
    assert activation_bytes(child) < activation_bytes(genome)


@every_kind
@given(data=st.data())
def test_parent_stays_as_it_is(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    model = build(genome)
    before = copy.deepcopy(model.state_dict())
    child_model = inherit(model, genome, edit)
    for value in child_model.state_dict().values():
        value.zero_()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.training


@every_kind
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("training", [True, False])
def test_dtype_device_and_mode_are_kept(kind, dtype, device, training):
    genome = versatile()
    edit = next(edit for edit in legal_edits(genome) if type(edit) is kind)
    model = build(genome).to(device, dtype).train(training)
    child_model = inherit(model, genome, edit)
    assert {(p.dtype, p.device.type) for p in child_model.parameters()} == {(dtype, device)}
    assert {part.training for part in child_model.modules()} == {training}
    assert all(p.requires_grad for p in child_model.parameters())


@every_kind
def test_edits_keep_the_state_they_do_not_touch(kind):
    genome = versatile()
    edit = next(edit for edit in legal_edits(genome) if type(edit) is kind)
    model = randomised(genome)
    for value in model.state_dict().values():
        if value.dim() == 0:
            value.fill_(7)
    state, inherited = model.state_dict(), inherit(model, genome, edit).state_dict()
    assert {int(inherited[name]) for name in inherited if name in state and state[name].dim() == 0} == {7}
    last = f"{genome.nodes[-2].name}.bias"
    assert torch.equal(inherited[last], state[last])


def narrow():
    net = Sketch(2, 4, 4)
    return net.end(net.add(Activation("gelu"), net.conv(net.relu(net.conv(net.input, 2)), 3)))


ILLEGAL = {
    "unknown group": (narrow, PruneUnits((("conv9", (0,)),)), "no unit group 'conv9'; groups are conv1"),
    "fixed group": (narrow, PruneUnits((("linear7", (0,)),)), "no unit group 'linear7'"),
    "unit beyond": (narrow, SplitUnits((("conv1", (2,)),)), "from 0 to 1"),
    "unit below": (narrow, PruneUnits((("conv1", (-1,)),)), "from 0 to 1"),
    "unit twice": (narrow, PruneUnits((("conv1", (1, 1)),)), "distinct"),
    "no units": (narrow, SplitUnits((("conv1", ()),)), "distinct"),
    "no groups": (narrow, PruneUnits(()), "expected one set of units per group"),
    "group twice": (narrow, SplitUnits((("conv1", (0,)), ("conv1", (1,)))), "one set of units per group"),
    "emptied": (narrow, PruneUnits((("conv1", (0, 1)),)), "pruning 2 units of 'conv1' empties 'conv1'"),
    "emptied block": (grouped, PruneUnits((("conv1", (0, 1)),)), "empties"),
    "unknown layer": (narrow, PruneLayer("conv9"), "no Conv or Linear node 'conv9'"),
    "not a layer": (narrow, PruneLayer("relu2"), "no Conv or Linear node 'relu2'"),
    "other shape": (narrow, PruneLayer("conv3"), r"reads shape \(2, 4, 4\) and makes \(3, 4, 4\)"),
    "unknown site": (narrow, SplitLayer("relu9"), "no node 'relu9'"),
    "even kernel": (narrow, SplitLayer("activation2", 2), "kernel must be odd, from 1 to 31, got 2"),
    "kernel below 1": (narrow, SplitLayer("activation2", -1), "kernel must be odd, from 1 to 31, got -1"),
    "thin unknown": (narrow, PruneConnections("relu2"), "no Conv or Linear node 'relu2'"),
    "thin to nothing": (narrow, PruneConnections("conv1", 18), "from 1 to all but one can go, not 18"),
    "thin by less": (narrow, PruneConnections("conv1", -1), "18 connections per unit.*not -1"),
    "thin binary": (versatile, PruneConnections("conv14"), "'conv14' is binary: its weights are never zero"),
    "grow dense": (narrow, GrowConnections("conv1"), "0 masked connections per unit: 1 cannot come back"),
    "grow too many": (versatile, GrowConnections("conv1", 8), "7 masked connections per unit: 8 cannot"),
    "grow binary": (versatile, GrowConnections("conv14"), "'conv14' is binary"),
    "binarise first": (narrow, Binarise("conv1"), "'conv1' reads the input or makes the class scores"),
    "binarise last": (narrow, Binarise("linear7"), "'linear7' reads the input or makes the class scores"),
    "binarise twice": (versatile, Binarise("conv14"), "'conv14' is binary already"),
    "binarise sparse": (versatile, Binarise("conv7"), "'conv7' is sparse, and binary weights"),
    "binarise unknown": (narrow, Binarise("conv9"), "no Conv or Linear node 'conv9'"),
    "debinarise real": (narrow, Debinarise("conv1"), "'conv1' is not binary"),
    "split what is read as signs": (
        versatile,
        SplitUnits((("conv11", (0,)),)),
        "a binary layer that reads it",
    ),
    "no relu": (narrow, SplitLayer("activation4"), "'activation4' is no ReLU"),
    "site is no activation": (narrow, SplitLayer("conv1"), "'conv1' is no ReLU"),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_edits_say_why(case):
    make, edit, message = ILLEGAL[case]
    genome = make()
    with pytest.raises(EditError, match=message):
        edit.apply(genome)
    with pytest.raises(EditError, match=message):
        inherit(build(genome), genome, edit)


@pytest.mark.parametrize(
    ("name", "group", "width", "splittable"),
    [
        ("concat_added", "conv1", 5, 5),
        ("concat_twice", "conv1", 3, 0),
        ("concat_single", "conv1", 1, 0),
        ("grouped_residual", "conv1", 3, 3),
        ("depthwise", "conv1", 3, 3),
        ("flat_tied", "conv1", 3, 3),
        ("flat_unequal", "conv2", 1, 1),
    ],
)
def test_units_split_wherever_their_copies_stay_aligned(name, group, width, splittable):
    genome = EXAMPLES[name]()
    groups = unit_table(genome).groups
    found = groups[group]
    assert (found.width, sum(found.splittable)) == (width, splittable)
    for unit in range(width):
        if not found.splittable[unit]:
            with pytest.raises(EditError, match=f"unit {unit} of '{group}' cannot be split"):
                SplitUnits(((group, (unit,)),)).apply(genome)


def test_a_child_too_wide_is_neither_legal_nor_applied():
    net = Sketch(1)
    wide = net.linear(net.input, 2**16)
    genome = net.finish(net.linear(wide, 1))
    with pytest.raises(EditError, match="65537 units: from 1 to 65536"):
        SplitUnits(((wide, (5,)),)).apply(genome)
    assert {type(edit) for edit in islice(legal_edits(genome), 3)} == {PruneUnits}


def test_an_inserted_layer_too_large_is_neither_legal_nor_applied():
    net = Sketch(1, 2, 2)
    site = net.relu(net.conv(net.conv(net.input, 6000), 6000, groups=6000))
    genome = net.finish(net.linear(net.flat(net.add(GlobalPool(), site)), 2))
    assert list(legal_layer_edits(genome)) == [PruneLayer("conv2")]
    with pytest.raises(EditError, match=f"more than {2**28} weights"):
        SplitLayer(site).apply(genome)


def test_new_names_are_free():
    net = Sketch(3)
    net.nodes.append(Node("linear5", Linear(4), (net.input,)))
    net.shapes["linear5"] = (4,)
    site = net.relu("linear5")
    genome = net.finish(net.linear(site, 2))
    child = SplitLayer(site).apply(SplitLayer(site).apply(genome))
    assert len(child.by_name) == len(genome.nodes) + 4
