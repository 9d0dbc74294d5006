"""Writing over values changes nothing but the memory that it takes."""

import pytest
import torch
from hypothesis import given

from evo_topo import phenotype
from evo_topo.hooks import hook_value
from evo_topo.in_place import overwritten
from evo_topo.ops import Activation, Add, Concat, Dropout, Linear, Multiply, Norm, Pool, Scale
from evo_topo.phenotype import build
from tests.reference import evaluate_nodes, random_inputs, randomised
from tests.strategies import EXAMPLES, Sketch, genomes, resnet

RELU = Activation("relu")


def outputs_and_gradients(genome):
    model, inputs = build(genome, seed=1), random_inputs(genome, batch=3).float()
    model(inputs)  # in training mode: statistics move
    torch.manual_seed(0)
    logits = model(inputs.requires_grad_())
    logits.square().sum().backward()
    return [logits, inputs.grad, *[p.grad for p in model.parameters()], *model.state_dict().values()]


def assert_as_without(genome):
    found = outputs_and_gradients(genome)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phenotype, "overwritten", lambda genome, node: None)
        expected = outputs_and_gradients(genome)
    for one, other in zip(found, expected, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@given(genome=genomes())
def test_outputs_and_gradients_are_the_same_bit_for_bit(genome):
    assert_as_without(genome)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_outputs_and_gradients_of_examples_are_the_same_bit_for_bit(name):
    assert_as_without(EXAMPLES[name]())


@pytest.mark.parametrize("function", ["relu", "relu6", "leaky_relu"])
def test_a_module_called_alone_leaves_what_it_reads(function):
    net = Sketch(4)
    model = build(net.finish(net.linear(net.add(Activation(function), net.linear(net.input, 5)), 3)))
    module, read = model.get_submodule("activation2"), torch.randn(6, 5)
    before = read.clone()
    made = module(read)
    assert torch.equal(read, before)
    assert torch.equal(made, module(read, inplace=True))
    assert torch.equal(read, made)


def overwrites(*path):
    """What the last of a path of operations writes over; those of several inputs read the first Conv, too."""
    net = Sketch(3, 4, 4)
    first = net.conv(net.input, 3)
    last = net.add(Norm(), first)
    for op in path:
        last = net.add(op, *([last, first] if op.num_inputs[1] > 1 else [last]))
    genome = net.end(last)
    over = overwritten(genome, genome.by_name[last])
    return None if over is None else over.rstrip("0123456789")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((RELU,), "norm"),
        ((Add(),), "norm"),
        ((Add(), RELU), "add"),
        ((Concat(), RELU), "concat"),
        ((Multiply(), RELU), "multiply"),
        ((Multiply(),), None),  # its gradient needs what it reads
        ((Activation("silu"),), None),
        ((RELU, RELU), None),  # the first one's gradient needs what it makes
        ((RELU, Add()), None),  # that, and the other input is read by the Norm
        ((Scale(1.0, 0.0), RELU), None),  # makes what it reads
        ((Dropout(0.5), RELU), None),  # as this does in evaluation mode
        ((Pool((2, 2)), RELU), None),
    ],
)
def test_only_fresh_values_are_overwritten(path, expected):
    assert overwrites(*path) == expected


def test_what_others_read_is_not_overwritten():
    net = Sketch(5)
    once, twice = net.linear(net.input, 3), net.linear(net.input, 3)
    for total in (net.add(Add(), twice, once, twice), net.add(Add(), twice, net.relu(once))):
        last = total
    genome = net.finish(net.add(Linear(3), net.add(Add(), last, "add3")))
    sums = [node for node in genome.nodes if isinstance(node.op, Add)]
    assert [overwritten(genome, node) for node in sums] == [None, None, "add5"]
    assert_as_without(genome)


def test_a_vector_that_is_added_to_a_map_is_not_written_over():
    net = Sketch(3, 4, 4)
    vector = net.linear(net.flat(net.input), 2)
    genome = net.end(net.add(Add(), vector, net.conv(net.input, 2)))
    (total,) = [node for node in genome.nodes if isinstance(node.op, Add)]
    assert overwritten(genome, total) == total.inputs[1]
    assert_as_without(genome)


def test_values_of_hooks_stay_as_they_are():
    genome = resnet((4, 6), 1, 8)
    model, inputs, kept = randomised(genome), random_inputs(genome, batch=2), {}
    names = [node.name for node in genome.nodes if isinstance(node.op, Norm)]

    def keeping(name):
        def hook(_, value):
            kept[name] = value.view_as(value)
            return kept[name]

        return hook

    handles = [hook_value(model, name, keeping(name)) for name in names]
    logits = model(inputs)
    for handle in handles:
        handle.remove()
    expected = evaluate_nodes(model, genome, inputs)
    gradients = torch.autograd.grad(logits.square().sum(), [kept[name] for name in names])
    total = expected[genome.nodes[-1].name].square().sum()
    for name, one, other in zip(
        names, gradients, torch.autograd.grad(total, [expected[name] for name in names]), strict=True
    ):
        torch.testing.assert_close(kept[name], expected[name])
        torch.testing.assert_close(one, other)
