import pytest
import torch
from torch.fx import symbolic_trace
from torch.nn import functional as F  # noqa: N812

from evo_topo.binary import BinaryConv1d, BinaryConv2d, BinaryLinear, Sign
from evo_topo.datasets import load_dataset
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.saliency import ggn_diagonal
from evo_topo.training import train
from populations.landmarks import binary_net
from tests.reference import random_inputs, randomised
from tests.strategies import EXAMPLES

LAYERS = {
    "linear": (lambda: BinaryLinear(5, 4, True), (3, 5)),
    "conv1d": (lambda: BinaryConv1d(2, 4, 3, 1, 1), (3, 2, 6)),
    "conv2d": (lambda: BinaryConv2d(4, 6, (3, 3), (2, 1), (1, 0), (1, 1), 2, True), (3, 4, 5, 6)),
}


def test_zero_counts_as_negative():
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0])
    assert Sign.of(x).tolist() == [-1, -1, -1, 1, 1]


def test_the_gradient_passes_within_one():
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 1.0, 1.1], requires_grad=True)
    (2 * Sign.of(x)).sum().backward()
    assert x.grad.tolist() == [0, 2, 2, 2, 2, 0]


@pytest.mark.parametrize("name", LAYERS)
def test_a_unit_computes_a_scaled_whole_number(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    assert layer.scale.tolist() == pytest.approx([row.abs().mean().item() for row in layer.weight])
    sums = layer(torch.randn(shape))
    if layer.bias is not None:
        sums = sums - layer.bias.view(layer.per_unit)
    sums = sums / layer.scale.view(layer.per_unit)
    assert (sums - sums.round()).abs().max() < 1e-4
    assert sums.abs().max() <= layer.weight[0].numel()
    assert len(sums.round().unique()) > 2


@pytest.mark.parametrize("name", LAYERS)
def test_latent_weights_get_the_gradient_of_the_scaled_signs(name):
    make, shape = LAYERS[name]
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64)
    scale = layer.scale.view(-1, *[1] * (layer.weight.dim() - 1))
    real = (scale * torch.where(layer.weight > 0, 1.0, -1.0)).detach().requires_grad_()
    read = torch.where(x > 0, 1.0, -1.0).double()
    if name == "linear":
        out = F.linear(read, real)
    elif name == "conv1d":
        out = F.conv1d(read, real, None, 1, 1)
    else:
        out = F.conv2d(read, real, None, (2, 1), (1, 0), 1, 2)
    seed = torch.randn_like(out)
    expected = torch.autograd.grad(out, real, seed)[0]
    torch.testing.assert_close(torch.autograd.grad(layer(x), layer.weight, seed)[0], expected)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_can_be_traced(name):
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    assert torch.equal(symbolic_trace(torch.nn.Sequential(layer))(x), layer(x))


def test_the_order_of_inputs_changes_no_bit():
    layer, x, order = BinaryLinear(300, 8), torch.randn(4, 300), torch.randperm(300)
    shuffled = BinaryLinear(300, 8)
    shuffled.load_state_dict({**layer.state_dict(), "weight": layer.weight[:, order]})
    assert torch.equal(shuffled(x[:, order]), layer(x))


def test_per_example_derivatives_of_a_binary_network_exist():
    genome = EXAMPLES["binary"]()
    found = ggn_diagonal(randomised(genome), random_inputs(genome))
    assert all(value.isfinite().all() for value in found.values())
    assert found["conv4.weight"].any()


def test_training_moves_latent_weights_within_one():
    task = load_dataset("digits")
    model = build(binary_net((1, 8, 8), 10, (8, 8, 8), (2, 1, 1)))
    layer = model.get_submodule("conv3")
    before, scale = layer.weight.detach().clone(), layer.scale.clone()
    train(model, task, Recipe(examples=640, batch_size=32, learning_rate=2.0), seed=0)
    latent = layer.weight.detach()
    assert latent.abs().max() == 1
    assert ((latent > 0) != (before > 0)).float().mean() > 0.05
    assert torch.equal(layer.scale, scale)
