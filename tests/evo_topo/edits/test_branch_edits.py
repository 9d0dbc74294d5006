import pytest
import torch

from evo_topo.edits import EditError, PruneBranch, SplitBranch, legal_edits
from evo_topo.inheritance import inherit
from evo_topo.ops import Add, Concat, Linear, Norm, Select
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, perceptron, resnet, versatile


def test_what_nobody_reads_goes_with_its_branch():
    genome = resnet((4, 6), 1, 8)
    block = {"conv4", "norm5", "activation6", "conv7", "norm8", "add9"}
    assert block < set(genome.by_name)
    child = PruneBranch("add9", 1).apply(genome)
    assert set(genome.by_name) - set(child.by_name) == block
    skip = PruneBranch("add9", 0).apply(genome)
    assert set(genome.by_name) - set(skip.by_name) == {"add9"}


def test_a_gate_can_go():
    genome = EXAMPLES["squeeze_excitation"]()
    (gate,) = (node for node in genome.nodes if node.name.startswith("multiply"))
    model, inputs = randomised(genome), random_inputs(genome)
    assert [e.branch for e in legal_edits(genome, (PruneBranch,)) if e.node == gate.name] == [1]
    edit = PruneBranch(gate.name, 1)
    child_model = inherit(model, genome, edit)
    assert not any("globalpool" in name for name in list(edit.apply(genome).by_name)[:-4])
    assert relative_error(child_model(inputs), model(inputs)) > 1e-3


@pytest.mark.parametrize("branch", [0, 1])
def test_columns_follow_what_a_concat_keeps(branch):
    net = Sketch(2, 4, 4)
    x, y = net.unit(net.input, 3), net.unit(net.input, 5)
    genome = net.end(net.unit(net.add(Concat(), x, y), 4))
    model = randomised(genome)
    state = inherit(model, genome, PruneBranch("concat7", branch)).state_dict()
    kept = slice(0, 3) if branch else slice(3, 8)
    assert torch.equal(state["conv8.weight"], model.state_dict()["conv8.weight"][:, kept])
    assert "conv4.weight" in state if branch == 0 else "conv4.weight" not in state


@pytest.mark.parametrize("genome", [versatile(), perceptron(), EXAMPLES["one_dimensional"]()])
def test_new_paths_learn_at_once(genome):
    """Only the last parameters of a path are zero, and those have a gradient."""
    for edit in legal_edits(genome, (SplitBranch,)):
        child, model = edit.apply(genome), randomised(genome)
        child_model = inherit(model, genome, edit)
        child_model(random_inputs(genome, 8)).square().sum().backward()
        *path, total = (node for node in child.nodes if node.name not in genome.by_name)
        assert isinstance(total.op, Add)
        last = child_model.get_submodule(path[-1].name)
        assert not any(p.any() for p in last.parameters())
        assert last.weight.grad.abs().max() > 0
        for node in path[:-1]:
            assert child_model.get_submodule(node.name).weight.abs().max() > 0


def test_paths_are_normalised_like_their_target_and_reach_across_strides():
    genome = versatile()
    end = "activation6"
    nodes = SplitBranch("activation3", end, 3).apply(genome).nodes
    path = [node for node in nodes if node.name not in genome.by_name]
    assert [type(node.op).__name__ for node in path] == ["Conv", "Norm", "Add"]
    assert path[0].op.stride == (2, 2)
    assert not path[0].op.bias
    plain = [n for n in SplitBranch("input0", "linear1").apply(perceptron()).nodes if "linear" in n.name]
    assert len([n for n in plain if isinstance(n.op, Linear)]) == 4
    skip = list(SplitBranch("activation2", "activation5", 0).apply(perceptron()).nodes)[-5:]
    assert any(isinstance(node.op, Norm) for node in skip)


def test_paths_are_seeded():
    genome = versatile()
    model = randomised(genome)
    edits = [SplitBranch("activation3", "activation6", 1, seed) for seed in (1, 1, 2)]
    name = next(n.name for n in edits[0].apply(genome).nodes if n.name not in genome.by_name)
    first, again, other = (inherit(model, genome, e).get_submodule(name).weight for e in edits)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_selection_follows_the_channels_that_a_concat_keeps():
    net = Sketch(2, 4, 4)
    x, y = net.unit(net.input, 2), net.unit(net.input, 6)
    joined = net.add(Concat(), x, y)
    genome = net.end(net.unit(net.add(Select((2, 3)), joined), 4))
    edit = PruneBranch(joined, 0)  # the first channels of the second branch are read as before
    model, inputs = randomised(genome), random_inputs(genome)
    assert relative_error(inherit(model, genome, edit)(inputs), model(inputs)) < 1e-12
    with pytest.raises(EditError, match="selects no channel"):
        PruneBranch(joined, 1).apply(genome)
    assert not PruneBranch(joined, 1).is_legal(genome)
