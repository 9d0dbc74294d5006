import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evo_topo.edits import (
    STRUCTURAL_KINDS,
    Binarise,
    Debinarise,
    EditError,
    PruneLayer,
    PruneUnits,
    SplitLayer,
    SplitUnits,
    edit_from_json,
    legal_edits,
    random_edit,
)
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe, inherit
from evo_topo.ops import Conv
from evo_topo.phenotype import build
from tests.children import expected_output
from tests.reference import forward, random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, genomes, perceptron, resnet

MAX_MACS = 300_000


@settings(max_examples=8)
@given(genome=genomes(), seed=st.integers(0, 999))
def test_chains_of_edits_replay_and_keep_what_they_promise(genome, seed):
    founder, rng, edits = genome, random.Random(seed), []
    model, inputs = randomised(founder), random_inputs(founder)
    for _ in range(12):
        try:
            edit = random_edit(genome, rng)
        except EditError:
            break
        child_model = inherit(model, genome, edit)
        outputs = child_model(inputs)
        assert torch.isfinite(outputs).all()
        assert relative_error(outputs, expected_output(model, genome, edit, inputs)) < 1e-9
        model, genome = child_model, edit.apply(genome)
        edits.append(edit.to_json())
    replayed = founder
    for text in edits:
        replayed = edit_from_json(text).apply(replayed)
    assert replayed == genome == Genome.from_json(genome.to_json())


@pytest.mark.parametrize("name", EXAMPLES)
def test_growing_many_times_preserves_the_function(name):
    genome, rng = EXAMPLES[name](), random.Random(0)
    model, inputs = randomised(genome), random_inputs(genome)
    expected = model(inputs)
    for _ in range(10):
        edit = next(e for e in (random_edit(genome, rng) for _ in range(50)) if e.is_function_preserving)
        model, genome = inherit(model, genome, edit), edit.apply(genome)
    assert relative_error(model(inputs), expected) < 1e-9


@pytest.mark.parametrize(
    ("name", "group"), [("squeeze_excitation", "conv4"), ("mobile", "conv1"), ("depthwise", "conv1")]
)
def test_channel_wise_convolutions_prune_down_to_one_channel_and_grow_again(name, group):
    genome = EXAMPLES[name]()
    model, inputs = randomised(genome), random_inputs(genome)
    edits = 0
    while any(isinstance(node.op, Conv) and node.op.groups > 1 for node in genome.nodes):
        edit = PruneUnits(((group, (0,)),))
        expected = expected_output(model, genome, edit, inputs)
        model, genome = inherit(model, genome, edit), edit.apply(genome)
        assert relative_error(model(inputs), expected) < 1e-10
        edits += 1
    assert edits
    for edit in legal_edits(genome, STRUCTURAL_KINDS):
        expected = expected_output(model, genome, edit, inputs)
        assert relative_error(inherit(model, genome, edit)(inputs), expected) < 1e-10


def train_a_little(model, inputs, steps=20):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    targets = torch.arange(len(inputs)) % 3
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()


def test_copies_start_equal_and_part_in_training():
    genome = perceptron()
    model = randomised(genome).train()
    child_model = inherit(model, genome, SplitUnits((("linear1", tuple(range(7))),)))
    weight = child_model.get_submodule("linear1").weight
    assert torch.equal(weight[::2], weight[1::2])
    train_a_little(child_model, random_inputs(genome, batch=30))
    assert (weight[::2] - weight[1::2]).norm() > 0.01 * weight.norm()


def test_each_outgoing_weight_goes_to_one_of_the_copies():
    genome, edit = perceptron(), SplitUnits((("linear1", (0, 6)),))
    model = randomised(genome)
    child_model = inherit(model, genome, edit)
    parent, child = (m.get_submodule("linear3").weight for m in (model, child_model))
    rows = [0, 0, 1, 2, 3, 4, 5, 6, 6]
    assert torch.equal(child[:, 2:7], parent[rows, 1:6])
    for unit, copies in ((0, child[:, :2]), (6, child[:, 7:])):
        assert torch.equal(copies.sum(1), parent[rows, unit])
        assert ((copies == 0).sum(1) == 1).all()
        assert (copies == 0).any(0).all()  # neither has all
    assert torch.equal(inherit(model, genome, edit).get_submodule("linear3").weight, child)


@pytest.fixture(scope="module")
def settled():
    """A genome, its network with settled BatchNorm statistics, and where to insert a layer."""
    genome = resnet((4, 6), 1, 8)
    model = build(genome, seed=1)
    for seed in range(30):
        model(random_inputs(genome, 128, seed).float())
    return genome, model, SplitLayer("activation3")


def probe_of(inputs):
    return Probe(inputs, torch.arange(len(inputs)) % 3)


def test_a_probe_keeps_the_function_in_training_mode(settled):
    genome, model, edit = settled
    inputs, fresh = (random_inputs(genome, 256, seed).float() for seed in (100, 101))
    probe = probe_of(inputs)
    with_probe, without = inherit(model, genome, edit, probe), inherit(model, genome, edit)
    expected = copy.deepcopy(model)(fresh)
    error = relative_error(with_probe(fresh), expected)
    assert error < 0.05
    assert relative_error(without(fresh), expected) > 5 * error
    parent = copy.deepcopy(model).eval()
    assert relative_error(inherit(parent, genome, edit, probe)(fresh), parent(fresh)) < 1e-5


def test_a_probe_of_constant_inputs_gives_finite_numbers(settled):
    genome, model, edit = settled
    child_model = inherit(model, genome, edit, probe_of(torch.zeros(4, 3, 8, 8)))
    assert all(torch.isfinite(value).all() for value in child_model.state_dict().values())
    assert torch.isfinite(child_model.eval()(random_inputs(genome).float())).all()


def test_the_probe_changes_only_the_new_layer(settled):
    genome, model, edit = settled
    with_probe = inherit(model, genome, edit, probe_of(torch.ones(8, 3, 8, 8)))
    without = inherit(model, genome, edit)
    assert model.training
    assert with_probe.training
    state = without.state_dict()
    changed = {name for name, value in with_probe.state_dict().items() if not torch.equal(value, state[name])}
    (norm,) = {name.split(".")[0] for name in changed}
    assert norm.startswith("norm")
    assert norm not in genome.by_name


def test_inherited_weights_are_the_parents_rows_and_columns():
    net = Sketch(2, 4, 4)
    genome = net.end(net.unit(net.unit(net.input, 4), 5))
    model = randomised(genome)
    state = model.state_dict()
    child = inherit(model, genome, PruneUnits((("conv1", (1,)), ("conv4", (0, 3))))).state_dict()
    rows, columns = [0, 2, 3], [1, 2, 4]
    assert torch.equal(child["conv1.weight"], state["conv1.weight"][rows])
    assert torch.equal(child["norm2.running_var"], state["norm2.running_var"][rows])
    assert torch.equal(child["conv4.weight"], state["conv4.weight"][columns][:, rows])
    assert torch.equal(child["linear9.weight"], state["linear9.weight"][:, columns])


def test_bypassing_a_branch_leaves_the_skip_connection():
    genome = perceptron()
    model, inputs = randomised(genome), random_inputs(genome)
    edit = PruneLayer("linear3")
    hidden = torch.relu(model.get_submodule("linear1")(inputs))
    expected = model.get_submodule("linear7")(2 * hidden)
    assert relative_error(inherit(model, genome, edit)(inputs), expected) < 1e-12
    assert relative_error(forward(model, genome, inputs), expected) > 1e-3


def test_an_inserted_layer_leaves_the_zeros_whose_signs_are_read():
    net = Sketch(2, 6, 6)
    site = net.unit(net.input, 8)
    genome = net.end(net.unit(site, 8, binary=True))
    model, probe = build(genome), random_inputs(genome, 64).float()
    for _ in range(30):
        model(probe)
    model.eval()
    child_model = inherit(model, genome, SplitLayer(site), probe_of(probe))
    assert relative_error(child_model(probe), model(probe)) < 1e-5


def test_signs_and_scale_are_those_of_the_real_weights_and_back():
    genome = perceptron()
    model = randomised(genome)
    weight = model.get_submodule("linear3").weight.detach()
    weight[0] *= 30  # latent weights are clipped, their scale is not
    binary_model = inherit(model, genome, Binarise("linear3"))
    layer = binary_model.get_submodule("linear3")
    assert torch.equal(layer.weight, weight.clamp(-1, 1))
    torch.testing.assert_close(layer.scale, weight.abs().mean(1))
    back = inherit(binary_model, Binarise("linear3").apply(genome), Debinarise("linear3"))
    torch.testing.assert_close(back.get_submodule("linear3").weight, weight.sign() * layer.scale[:, None])
