import pytest
import torch
from safetensors.torch import load, save
from torch.nn.functional import cross_entropy

from evo_topo.datasets import load_dataset
from evo_topo.edits import PruneConnections
from evo_topo.inheritance import inherit
from evo_topo.masked import MaskedConv1d, MaskedConv2d, MaskedLinear, set_connections
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.training import train
from populations.founders import conv_net
from tests.reference import random_inputs
from tests.strategies import EXAMPLES

LAYERS = {
    "linear": lambda: MaskedLinear(7, 5, True, fan_in=3),
    "conv1d": lambda: MaskedConv1d(2, 6, 3, fan_in=4),
    "conv2d": lambda: MaskedConv2d(4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 2, False, fan_in=17),
}


def check(layer, fan_in):
    assert layer.mask.flatten(1).sum(1).tolist() == [fan_in] * len(layer.weight)
    assert not layer.weight[~layer.mask].any()
    assert layer.weight[layer.mask].all()


@pytest.mark.parametrize("name", LAYERS)
def test_new_layers_have_so_many_weights_per_unit_at_random(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, other = LAYERS[name](), LAYERS[name]()
    check(layer, layer.fan_in)
    assert not torch.equal(layer.mask, other.mask)


def test_the_most_important_connections_stay():
    layer = MaskedLinear(6, 2, fan_in=3)
    layer.mask.fill_(True)
    layer.weight.data = torch.tensor([[3.0, -5, 1, 4, -2, 0.5], [1, 2, 3, -4, -5, -6]])
    set_connections(layer)
    assert layer.weight.tolist() == [[3, -5, 0, 4, 0, 0], [0, 0, 0, -4, -5, -6]]
    check(layer, 3)


def test_criteria_replace_magnitude_and_chance():
    layer = MaskedLinear(5, 1, fan_in=2)
    layer.mask.fill_(True)
    layer.weight.data = torch.tensor([[9.0, 8, 7, 6, 5]])
    set_connections(layer, keep=torch.tensor([[1e-30, 0.0, 2e-30, 1e30, 0.0]]))
    assert layer.weight.tolist() == [[0, 0, 7, 6, 0]]
    layer.fan_in = 3
    set_connections(layer, grow=torch.tensor([[0.1, 0.3, 9.0, 9.0, 0.2]]))
    assert layer.weight.tolist() == [[0, 0, 7, 6, 0]]
    assert layer.mask.tolist() == [[False, True, True, True, False]]


def test_masked_weights_stay_zero_through_training_and_storage():
    task = load_dataset("digits")
    genome = conv_net((1, 8, 8), 10, (6, 8), (1, 2))
    edit = PruneConnections("conv4", 40)
    model, child = build(genome), edit.apply(genome)
    sparse = inherit(model, genome, edit)
    layer = sparse.get_submodule("conv4")
    before, mask = layer.weight.detach().clone(), layer.mask.clone()
    recipe = Recipe(examples=1280, batch_size=32, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    train(sparse, task, recipe, seed=0)
    assert torch.equal(layer.mask, mask)
    check(layer, 14)
    assert (layer.weight != before)[mask].all()
    stored = build(child, seed=5)
    stored.load_state_dict(load(save(sparse.state_dict())))
    inputs = random_inputs(child).float()
    assert torch.equal(stored.eval()(inputs), sparse.eval()(inputs))
    check(stored.get_submodule("conv4"), 14)


def test_masked_weights_get_no_gradient():
    genome = EXAMPLES["sparse"]()
    model = build(genome)
    cross_entropy(model(random_inputs(genome).float()), torch.tensor([0, 1, 2, 0])).backward()
    for name in ("conv1", "conv4", "conv7", "linear16"):
        layer = model.get_submodule(name)
        assert not layer.weight.grad[~layer.mask].any()
        assert layer.weight.grad[layer.mask].any()
