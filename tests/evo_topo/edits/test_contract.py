"""What every kind of edit keeps: a new kind enters by being in `AnyEdit`, with a line in `reference.py`."""

import copy
import math
from itertools import islice
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evo_topo.cost import activation_bytes, count_macs, count_params
from evo_topo.edits import (
    KINDS,
    STRUCTURAL_KINDS,
    AddUnits,
    Binarise,
    Debinarise,
    DownsampleEarlier,
    DownsampleLater,
    EditError,
    Factorise,
    Fuse,
    GrowConnections,
    GrowKernel,
    MergeLayers,
    PruneBranch,
    PruneConnections,
    PruneLayer,
    PruneUnits,
    ShrinkKernel,
    SplitBranch,
    SplitLayer,
    SplitUnits,
    Trade,
    edit_from_json,
    legal_edits,
)
from evo_topo.genome import Genome, Node
from evo_topo.inheritance import inherit
from evo_topo.ops import Activation, Add, Concat, Conv, GlobalPool, Linear
from evo_topo.phenotype import build
from evo_topo.units import NEW, unit_table
from tests.children import expected_output
from tests.reference import (
    counted_flops,
    output_by_joint,
    random_inputs,
    randomised,
    relative_error,
)
from tests.strategies import EXAMPLES, Sketch, genome_edits, grouped, versatile

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
few = settings(max_examples=8)  # of every kind
NO_JOINT = (PruneUnits, SplitUnits, AddUnits, Trade)
SOMETIMES_A_JOINT = (PruneBranch, DownsampleEarlier, DownsampleLater)


@every_kind
@few
@given(data=st.data())
def test_apply_is_pure(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    before = genome.to_json()
    child = edit.apply(genome)
    assert child == edit.apply(genome) == edit.apply(Genome.from_json(before))
    assert child != genome
    assert genome.to_json() == before


@every_kind
@few
@given(data=st.data())
def test_child_and_edit_survive_json(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    child = edit.apply(genome)
    assert Genome.from_json(child.to_json()) == child
    assert edit_from_json(edit.to_json()) == edit
    assert edit.describe()


@every_kind
@few
@given(data=st.data())
def test_maps_account_for_every_channel_of_the_child(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    for step in steps(genome, edit):
        check_maps(*step)


def steps(genome, edit):
    """The edits of a trade, each with the genome that it applies to; else the edit alone."""
    if isinstance(edit, Trade):
        return [(genome, edit.first), (edit.first.apply(genome), edit.second)]
    return [(genome, edit)]


def check_maps(genome, edit):
    child, unit_map, channel_map = edit.apply(genome), edit.unit_map(genome), edit.channel_map(genome)
    for group, units in unit_map.items():
        assert set(units) <= {NEW, *range(unit_table(genome).groups[group].width)}
        assert len(units) > units.count(NEW)
    assert channel_map.keys() == (genome.shapes.keys() if channel_map else set())
    for name in child.shapes.keys() & genome.shapes.keys():
        channels = channel_map.get(name, range(genome.shapes[name][0]))
        assert child.shapes[name][0] == len(channels)
        assert set(channels) <= {NEW, *range(genome.shapes[name][0])}


@every_kind
@few
@given(data=st.data())
def test_all_behind_the_joint_stays_as_it_is(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    joint = edit.joint(genome)
    if kind in NO_JOINT or (kind in SOMETIMES_A_JOINT and joint is None):
        assert joint is None
        return
    assert joint is not None
    child, model, inputs = edit.apply(genome), randomised(genome), random_inputs(genome)
    child_model = inherit(model, genome, edit)
    expected = output_by_joint(model, genome, child_model, child, joint, inputs)
    assert relative_error(child_model(inputs), expected) < 1e-10
    if not edit.is_function_preserving:
        assert child.shapes[joint[1]] == genome.shapes[joint[0]]


@every_kind
@few
@given(data=st.data())
def test_child_computes_what_its_edit_promises(kind, data):
    genome, edit = data.draw(genome_edits(kind))
    model, inputs = randomised(genome), random_inputs(genome)
    child_model = inherit(model, genome, edit)
    assert relative_error(child_model(inputs), expected_output(model, genome, edit, inputs)) < 1e-10


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_legal_edit_of_an_example_does_what_it_promises(name):
    genome = EXAMPLES[name]()
    model, inputs = randomised(genome), random_inputs(genome, batch=2)
    for edit in legal_edits(genome, STRUCTURAL_KINDS):
        error = relative_error(
            inherit(model, genome, edit)(inputs), expected_output(model, genome, edit, inputs)
        )
        assert error < 1e-10, edit


@every_kind
@few
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
@few
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
    edit = next(legal_edits(genome, (kind,)))
    model = build(genome).to(device, dtype).train(training)
    child_model = inherit(model, genome, edit)
    assert {(p.dtype, p.device.type) for p in child_model.parameters()} == {(dtype, device)}
    assert {part.training for part in child_model.modules()} == {training}
    assert all(p.requires_grad for p in child_model.parameters())


@every_kind
def test_edits_keep_the_state_they_do_not_touch(kind):
    genome = versatile()
    edit = next(legal_edits(genome, (kind,)))
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


def point():
    """1x1 convolutions, on a map and on a pixel."""
    net = Sketch(2, 4, 4)
    return net.end(net.conv(net.add(GlobalPool(), net.relu(net.conv(net.input, 2, 1))), 3, 1))


def valid():
    net = Sketch(2, 4, 4)
    return net.end(net.conv(net.input, 2, 3, padding=(0, 0)))


def residual():
    net = Sketch(2, 4, 4)
    x = net.conv(net.input, 3)
    y = net.conv(net.relu(x), 3)
    return net.end(net.add(Add(), net.relu(y), y))


def gated():
    net = Sketch(2, 4, 4)
    return net.end(net.gate(net.conv(net.input, 3), 2))


def pixel():
    net = Sketch(2, 1, 1)
    return net.end(net.conv(net.input, 2))


def joined():
    net = Sketch(4)
    return net.finish(net.add(Concat(), net.linear(net.input, 2), net.linear(net.input, 1)))


def shifting():
    """A stride of two behind a kernel without padding."""
    net = Sketch(2, 7, 7)
    x = net.conv(net.input, 3)
    return net.end(net.conv(x, 3, padding=(0, 0), stride=(2, 2)))


def flat():
    net = Sketch(2, 5, 5)
    return net.finish(net.linear(net.flat(net.conv(net.input, 2)), 3))


def scored():
    net = Sketch(2, 2, 2)
    return net.finish(net.flat(net.conv(net.input, 2)))


def shared():
    net = Sketch(2, 4, 4)
    x = net.conv(net.input, 2)
    return net.end(net.add(Add(), net.conv(x, 2, 1), x))


def features():
    net = Sketch(4)
    return net.finish(net.linear(net.relu(net.linear(net.input, 2)), 2))


def bottleneck():
    net = Sketch(4)
    return net.finish(net.linear(net.relu(net.linear(net.input, 1)), 4))


def far():
    net = Sketch(2, 7, 7)
    return net.end(net.conv(net.conv(net.input, 3, padding=(0, 0)), 3, padding=(0, 0)))


def biased():
    net = Sketch(2, 4, 4)
    return net.end(net.conv(net.conv(net.input, 2, 1, bias=True), 3))


def parallel():
    net = Sketch(2, 4, 4)
    x, y = net.conv(net.input, 3), net.conv(net.input, 3, padding=(2, 2), dilation=(2, 2))
    z = net.conv(net.input, 3, 1)
    return net.end(net.add(Add(), x, y, z, z))


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
    "thin binary": (versatile, PruneConnections("conv17"), "'conv17' is binary: its weights are never zero"),
    "grow dense": (narrow, GrowConnections("conv1"), "0 masked connections per unit: 1 cannot come back"),
    "grow too many": (versatile, GrowConnections("conv7", 46), "45 masked connections per unit: 46 cannot"),
    "grow binary": (versatile, GrowConnections("conv17"), "'conv17' is binary"),
    "binarise first": (narrow, Binarise("conv1"), "'conv1' reads the input or makes the class scores"),
    "binarise last": (narrow, Binarise("linear7"), "'linear7' reads the input or makes the class scores"),
    "binarise twice": (versatile, Binarise("conv17"), "'conv17' is binary already"),
    "binarise sparse": (versatile, Binarise("conv7"), "'conv7' is sparse, and binary weights"),
    "binarise unknown": (narrow, Binarise("conv9"), "no Conv or Linear node 'conv9'"),
    "debinarise real": (narrow, Debinarise("conv1"), "'conv1' is not binary"),
    "split what is read as signs": (
        versatile,
        SplitUnits((("conv14", (0,)),)),
        "a binary layer that reads it",
    ),
    "no relu": (narrow, SplitLayer("activation4"), "'activation4' is no ReLU"),
    "site is no activation": (narrow, SplitLayer("conv1"), "'conv1' is no ReLU"),
    "kernel of a relu": (narrow, ShrinkKernel("activation2"), "no Conv node 'activation2'"),
    "kernel of nothing": (narrow, GrowKernel("conv9"), "no Conv node 'conv9'"),
    "no border": (point, ShrinkKernel("conv1"), r"kernel \(1, 1\) of 'conv1' has no border taps"),
    "shrink sparse": (versatile, ShrinkKernel("conv7"), "'conv7' is sparse or binary"),
    "grow taps of signs": (versatile, GrowKernel("conv17"), "'conv17' is sparse or binary"),
    "factors of signs": (versatile, Factorise("conv17", "reduce"), "'conv17' is sparse or binary"),
    "fuse sparse": (versatile, Fuse("conv7", "norm8"), "'conv7' is sparse or binary"),
    "no padding": (valid, ShrinkKernel("conv1"), r"'conv1' has padding \(0, 0\)"),
    "units of nowhere": (narrow, AddUnits("conv9"), "no unit group 'conv9'"),
    "no new units": (narrow, AddUnits("conv1", 0), "number of new units must be from 1"),
    "too many features": (flat, AddUnits("conv1", 2**16), "'flatten2' would have over 1048576 channels"),
    "too many units": (narrow, AddUnits("conv1", 2**16), "makes 65538 units: from 1 to 65536"),
    "no place for units": (EXAMPLES["concat_twice"], AddUnits("conv1"), "no place where new units"),
    "factors of a relu": (narrow, Factorise("activation2", "reduce"), "'activation2' is no Linear"),
    "factors of groups": (grouped, Factorise("conv8", "reduce"), "'conv8' is no Linear"),
    "factors of features": (narrow, Factorise("linear7", "expand"), "'linear7' is a Linear"),
    "factors of one tap": (point, Factorise("conv1", "separable"), "'conv1' has one tap"),
    "fire off centre": (valid, Factorise("conv1", "fire"), "'conv1' cannot become a fire module"),
    "rank too large": (narrow, Factorise("conv1", "reduce", 3), "rank of 'conv1' as 'reduce' is 1 to 2"),
    "rank of windows": (narrow, Factorise("conv1", "separable", 2), "as 'separable' is 1 to 1, not 2"),
    "no rank": (narrow, Factorise("conv1", "reduce", 0), "rank of 'conv1' as 'reduce' is 1 to 2, not 0"),
    "fuse a relu": (narrow, Fuse("activation2", "conv3"), "'activation2' is no Conv or Linear"),
    "fuse what others read": (shared, Fuse("conv1", "conv2"), "'conv2' is not the only node"),
    "fuse unlike layers": (features, Fuse("linear1", "activation2"), "'activation2' is no layer like"),
    "fuse two windows": (shifting, Fuse("conv1", "conv2"), "neither 'conv1' nor 'conv2' is a 1x1"),
    "fuse a bias": (biased, Fuse("conv1", "conv2"), "bias of 'conv1' does not reach into the padding"),
    "fuse strangers": (residual, Fuse("conv1", "conv3"), "do not read the same for one Add alone"),
    "fuse with itself": (residual, Fuse("conv1", "conv1"), "do not read the same for one Add alone"),
    "fuse shifted windows": (parallel, Fuse("conv1", "conv2"), "do not lie one inside the other"),
    "fuse a term twice": (parallel, Fuse("conv1", "conv3"), "adds one of 'conv1' and 'conv3' more than"),
    "half a trade": (narrow, Trade(PruneLayer("conv9"), GrowKernel("conv1")), "no Conv or Linear node"),
    "trade of what is gone": (residual, Trade(PruneLayer("conv3"), GrowKernel("conv3")), "no Conv node"),
    "no branches": (narrow, PruneBranch("conv1", 0), "'conv1' is no Add, Multiply or Concat"),
    "no such branch": (residual, PruneBranch("add5", 2), "'add5' has inputs 0 to 1, not 2"),
    "branch below": (residual, PruneBranch("add5", -1), "'add5' has inputs 0 to 1, not -1"),
    "only the gate is left": (gated, PruneBranch("multiply7", 0), r"would make \(3, 1, 1\)"),
    "tied channels": (EXAMPLES["concat_added"], PruneBranch("concat10", 0), "tied in 'add11'"),
    "scores": (joined, PruneBranch("concat3", 0), "tied in 'output4'"),
    "path from behind": (residual, SplitBranch("add5", "conv1"), "'add5' is not listed before 'conv1'"),
    "path from nowhere": (residual, SplitBranch("conv9", "conv1"), "no node 'conv9'"),
    "path to the end": (joined, SplitBranch("linear1", "output4"), "'output4' is the output"),
    "path of even kernel": (residual, SplitBranch("input0", "conv3", 2), "kernel must be 0 or odd"),
    "path of another shape": (narrow, SplitBranch("conv1", "conv3", 0), "do not fit together"),
    "path of a pixel": (gated, SplitBranch("globalpool2", "multiply7", 0), r"makes \(3, 1, 1\), but"),
    "path from features": (residual, SplitBranch("conv1", "linear8"), "reads \\(features,\\)"),
    "nothing strided": (residual, DownsampleEarlier("conv1"), "conv3: expected one stride above 1"),
    "nothing to give": (residual, DownsampleLater("conv1"), "conv1: expected one stride above 1"),
    "flat map of scores": (scored, DownsampleEarlier("conv1"), "'flatten2' also makes or reads"),
    "map of a pixel": (gated, DownsampleEarlier("conv5"), "'multiply7' also makes or reads"),
    "thinned to nothing": (pixel, DownsampleEarlier("conv1"), r"is \(2, 1, 1\): it stays as it is"),
    "taker strided": (EXAMPLES["strided"], DownsampleLater("conv11"), "stride 1, which can take one"),
    "stride across padding": (shifting, DownsampleEarlier("conv1"), "cannot move across this kernel"),
    "merge a relu": (narrow, MergeLayers("conv1", "relu2"), "no Conv or Linear node 'relu2'"),
    "merge sparse": (versatile, MergeLayers("conv4", "conv7"), "'conv7' is sparse or binary"),
    "merge across a sum": (residual, MergeLayers("conv3", "linear8"), "'conv3' makes"),
    "merge across a pool": (valid, MergeLayers("conv1", "linear4"), "'globalpool2' lies between"),
    "merge backwards": (features, MergeLayers("linear3", "linear1"), "'output4' lies between"),
    "merge groups": (EXAMPLES["depthwise"], MergeLayers("conv1", "conv4"), "'conv4' is grouped, dilated"),
    "merge a bottleneck": (bottleneck, MergeLayers("linear1", "linear3"), "would save nothing"),
    "merge a far window": (far, MergeLayers("conv1", "conv2"), r"needs a padding of \[-1, -1\]"),
    "only padding": (point, GrowKernel("conv4"), r"windows of 'conv4' would see only padding"),
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
    assert not list(SplitLayer.legal(genome))
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
