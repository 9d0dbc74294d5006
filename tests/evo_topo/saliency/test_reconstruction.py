import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from evo_topo.channels import channel_origins
from evo_topo.edits import EditError, PruneBranch, PruneLayer, PruneUnits
from evo_topo.inheritance import inherit
from evo_topo.ops import Add, Norm, is_plain
from evo_topo.saliency import least_squares, reconstruct
from evo_topo.saliency.changes import in_common
from evo_topo.units import mixes_units, unit_table
from tests.reference import evaluate_nodes, patches, random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, genomes, marked_genomes

NAMES = ["small_resnet", "dense", "squeeze_excitation", "one_dimensional", "flat_tied", "perceptron"]
MARKED = ["sparse", "binary", "versatile"]


@pytest.fixture(autouse=True)
def every_position(monkeypatch):
    """No drawing of positions, and chunks that do not divide the batch."""
    monkeypatch.setattr(least_squares, "EQUATIONS_PER_WEIGHT", 10**9)
    monkeypatch.setattr(least_squares, "_CHUNK", 7)


def half_pruned(genome):
    """Removes every third unit of each group, where that may be."""
    units = {name: tuple(range(1, group.width, 3)) for name, group in unit_table(genome).groups.items()}
    edit = PruneUnits(tuple((name, some) for name, some in units.items() if some))
    try:
        edit.apply(genome)
    except EditError:
        assume(False)
    return edit


def refit(genome, batch=20):
    model, edit, inputs = randomised(genome), half_pruned(genome), random_inputs(genome, batch)
    child_model = inherit(model, genome, edit)
    reconstruct(child_model, model, genome, edit, inputs)
    return model, edit, inputs, child_model


@pytest.mark.parametrize("name", [*NAMES, "versatile"])
def test_every_layer_is_at_the_minimum_of_its_penalised_squares(name):
    """The gradient of the sum of squares, by autograd, is zero at the weights that were found."""
    genome = EXAMPLES[name]()
    model, edit, inputs, child_model = refit(genome)
    child, before = edit.apply(genome), inherit(model, genome, edit)
    origins = channel_origins(genome, edit.unit_map(genome))
    theirs, ours = evaluate_nodes(model, genome, inputs), evaluate_nodes(child_model, child, inputs)
    checked = 0
    for node in child.nodes:
        if not mixes_units(node) or not is_plain(node.op):
            continue
        layer, read = child_model.get_submodule(node.name), ours[node.inputs[0]].detach()
        target = theirs[node.name][:, origins[node.name]].detach()
        old = before.get_submodule(node.name).weight.detach()
        free = layer.bias is not None or all(
            isinstance(child.by_name[reader].op, Norm) for reader in child.readers[node.name]
        )
        weight = layer.weight.detach().clone().requires_grad_()
        made = torch.func.functional_call(
            layer, {"weight": weight, **({} if layer.bias is None else {"bias": layer.bias})}, (read,)
        )
        error = (made - target).transpose(0, 1).flatten(1)
        columns = patches(layer, read)
        if free:
            error = error - error.mean(1, keepdim=True)
            columns = columns - columns.mean(0)
        ridge = least_squares.DAMPING * columns.square().mean()
        total = error.square().mean(1).sum() + ridge * (weight - old).square().sum()
        (gradient,) = torch.autograd.grad(total, weight)
        assert gradient.abs().max() < 1e-9
        if layer.bias is not None:
            mean = (made - target).transpose(0, 1).flatten(1).mean(1)
            assert mean.abs().max() < 1e-9
        checked += 1
    assert checked > 1


@pytest.mark.parametrize("name", MARKED)
def test_sparse_and_binary_layers_keep_what_they_inherit(name):
    genome = EXAMPLES[name]()
    model, edit, inputs, child_model = refit(genome)
    before, kept = inherit(model, genome, edit), 0
    for node in edit.apply(genome).nodes:
        if not is_plain(node.op):
            old, new = (m.get_submodule(node.name).state_dict() for m in (before, child_model))
            assert old.keys() == new.keys()
            assert all(torch.equal(new[key], old[key]) for key in old)
            kept += 1
    assert kept
    assert not torch.equal(child_model(inputs), before(inputs))


@given(st.one_of(genomes(), marked_genomes()))
def test_norms_bear_the_statistics_of_the_child(genome):
    _, edit, inputs, child_model = refit(genome, 5)
    child = edit.apply(genome)
    values = evaluate_nodes(child_model, child, inputs)
    unchanged = in_common(genome, child)
    for node in child.nodes:
        if isinstance(node.op, Norm) and node.name not in unchanged:
            norm, read = child_model.get_submodule(node.name), values[node.inputs[0]]
            read = read.transpose(0, 1).flatten(1)
            assert relative_error(norm.running_mean, read.mean(1)) < 1e-9
            assert relative_error(norm.running_var, read.var(1, correction=0)) < 1e-9


def test_a_unit_that_others_can_stand_in_for_is_made_up():
    """Twin units: one goes, the other takes over its outgoing weights, and nothing is lost."""
    net = Sketch(2, 6, 6)
    genome = net.end(net.conv(net.unit(net.input, 4), 5))
    model, inputs = randomised(genome), random_inputs(genome, 30)
    first, norm = (model.get_submodule(node.name) for node in genome.nodes[1:3])
    for tensor in (first.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data[3] = tensor.data[0]
    norm.bias.data += 1.0  # units that are alive
    edit = PruneUnits(((genome.nodes[1].name, (3,)),))
    plain, refitted = inherit(model, genome, edit), inherit(model, genome, edit)
    reconstruct(refitted, model, genome, edit, inputs)
    with torch.no_grad():
        lost = (plain(inputs) - model(inputs)).norm()
        left = (refitted(inputs) - model(inputs)).norm()
    assert left < 0.05 * lost


def test_the_parent_stays_and_drawn_positions_are_enough(monkeypatch):
    genome = EXAMPLES["small_resnet"]()
    model, edit, inputs, every = refit(genome, 40)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(least_squares, "EQUATIONS_PER_WEIGHT", 10)
    some = [inherit(model, genome, edit) for _ in range(3)]
    for child_model, seed in zip(some, (0, 0, 1), strict=True):
        reconstruct(child_model, model, genome, edit, inputs, seed)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    a, b, c, d = (m(inputs).detach() for m in (every, *some))
    assert torch.equal(b, c)
    assert not torch.equal(b, d)
    assert relative_error(b, a) < 0.3


def test_a_network_that_cannot_run_node_by_node_is_refused():
    genome = EXAMPLES["perceptron"]()
    model, edit = torch.nn.Sequential(torch.nn.Linear(5, 7)), half_pruned(genome)
    with pytest.raises(TypeError, match="from build or inherit, got Sequential"):
        reconstruct(randomised(edit.apply(genome)), model, genome, edit, random_inputs(genome))


@pytest.mark.parametrize("edit", [PruneLayer("conv5"), PruneBranch("add6", 1)])
def test_where_paths_run_side_by_side_each_is_refit(edit):
    """At a joint the parent runs ahead, past nodes that the child still has to come to."""
    net = Sketch(3, 6, 6)
    first = net.relu(net.conv(net.input, 4))
    short, long = net.relu(net.conv(first, 4)), net.conv(first, 4)
    genome = net.end(net.relu(net.conv(net.add(Add(), short, long), 5)))
    model, inputs = randomised(genome), random_inputs(genome, 20)
    child_model = inherit(model, genome, edit)
    before = relative_error(child_model(inputs), model(inputs))
    reconstruct(child_model, model, genome, edit, inputs)
    assert relative_error(child_model(inputs), model(inputs)) < before
