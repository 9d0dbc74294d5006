import copy
from typing import get_args

import pytest
import torch
from hypothesis import given
from torch import nn

from evo_topo.cost import count_flops
from evo_topo.ops import Activation, ActivationFunction, Add, GlobalPool, Multiply, Norm
from evo_topo.phenotype import build
from tests.reference import counted_flops, forward, random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, genomes, resnet


@given(genome=genomes())
def test_forward_computes_what_the_nodes_say(genome):
    model, inputs = randomised(genome), random_inputs(genome, batch=3)
    outputs = model(inputs)
    assert outputs.shape == (3, genome.num_classes)
    assert relative_error(outputs, forward(model, genome, inputs)) < 1e-12


@given(genome=genomes())
def test_every_node_has_the_shape_it_is_said_to_have(genome):
    model, seen = build(genome).eval(), {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.shape[1:]}))
    model(random_inputs(genome, batch=2).float())
    assert seen
    assert all(genome.shapes[name] == shape for name, shape in seen.items())


@given(genome=genomes())
def test_seed_decides_the_weights_and_nothing_else_changes(genome):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    states = [build(genome, seed).state_dict() for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.gpu
def test_the_random_state_of_the_gpu_stays():
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    build(resnet((4, 6), 1, 8))
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("name", EXAMPLES)
def test_networks_export(name):
    genome = EXAMPLES[name]()
    model, inputs = build(genome).eval(), random_inputs(genome, batch=2).float()
    exported = torch.export.export(model, (inputs,))
    torch.testing.assert_close(exported.module()(inputs), model(inputs))


def test_networks_are_readable():
    genome = resnet((4, 6), 1, 8)
    model = build(genome)
    assert "Conv2d(3, 4, kernel_size=(3, 3)" in str(model)
    assert "conv1 = self.conv1(input0)" in model.code
    assert set(dict(model.named_children())) <= set(genome.by_name)


def test_networks_copy_and_train():
    genome = EXAMPLES["squeeze_excitation"]()
    model = copy.deepcopy(build(genome)).train()
    loss = nn.functional.cross_entropy(
        model(random_inputs(genome, batch=8).float()), torch.zeros(8, dtype=torch.long)
    )
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("function", get_args(ActivationFunction))
def test_every_activation_is_torchs_own(function):
    net = Sketch(4)
    genome = net.finish(net.linear(net.add(Activation(function), net.input), 2))
    model, inputs = build(genome), random_inputs(genome).float()
    wanted = getattr(nn.functional, function, None) or getattr(torch, function)
    assert torch.equal(model(inputs), model.linear2(wanted(inputs)))


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 5, 3)])
def test_norms_take_their_epsilon(shape):
    net = Sketch(*shape)
    genome = net.end(net.add(Norm(0.25), net.input))
    assert build(genome).get_submodule("norm1").eps == 0.25
    assert build(genome)(random_inputs(genome).float()).shape == (4, 3)


@pytest.mark.parametrize(
    "name", ["float64", "int8", "log2", "self1", "torch0", "t_1", "add_1", "x" * 63 + "1"]
)
def test_odd_names_are_only_names(name):
    net = Sketch(3)
    x = net.linear(net.input, 4)
    net.add(Activation("relu"), x)
    net.nodes[-1] = type(net.nodes[-1])(name, net.nodes[-1].op, (x,))
    net.shapes[name] = (4,)
    genome = net.finish(net.linear(name, 2))
    assert build(genome)(random_inputs(genome).float()).shape == (4, 2)


@pytest.mark.parametrize("dims", [1, 2])
def test_a_pointwise_convolution_with_a_stride_is_that_of_torch(dims):
    net = Sketch(2, *[5] * dims)
    genome = net.end(net.conv(net.input, 6, 1, stride=(2,) * dims, bias=True))
    model = randomised(genome)
    (layer,) = [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    inputs = random_inputs(genome).requires_grad_()
    plain = type(layer).__bases__[0].forward(layer, inputs)
    assert torch.equal(layer(inputs), plain)
    assert counted_flops(genome) == count_flops(genome)


@pytest.mark.parametrize("kind", [Add, Multiply])
def test_points_may_come_first_in_a_sum_or_product(kind):
    net = Sketch(3, 5, 4)
    x = net.conv(net.input, 6)
    points = [net.conv(net.add(GlobalPool(), x), 6, 1) for _ in range(2)]
    genome = net.end(net.conv(net.add(kind(), *points, x), 2))
    model, inputs = randomised(genome), random_inputs(genome)
    assert relative_error(model(inputs), forward(model, genome, inputs)) < 1e-12
