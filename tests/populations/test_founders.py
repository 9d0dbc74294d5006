import pytest
import torch

from evo_topo import build, count_macs, count_params
from populations.founders import conv_net, perceptron, residual_net
from populations.presets import PRESETS


def test_resnet20_has_its_published_cost():
    # He et al. 2016: 0.27 M parameters; 40.8 M MACs with 1 x 1 shortcuts
    genome = residual_net((3, 32, 32), 10, (16, 32, 64), 3)
    assert count_params(genome) == pytest.approx(0.272e6, rel=0.01)
    assert count_macs(genome) == pytest.approx(40.8e6, rel=0.01)


@pytest.mark.parametrize(
    "genome",
    [
        conv_net((1, 40), 5, (4, 6), (1, 2)),
        conv_net((3, 9, 7), 4, (4, 6), (2, 2)),
        residual_net((2, 16), 3, (4, 8), 2),
        perceptron((13,), 3, (8, 8)),
        perceptron((1, 4, 4), 3, ()),
    ],
    ids=["conv-1d", "conv-2d", "residual-1d", "vector", "linear"],
)
def test_founders_of_any_dimension_run(genome):
    out = build(genome).eval()(torch.randn(2, *genome.input_shape))
    assert out.shape == (2, genome.num_classes)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_themselves_and_fit_their_data(name):
    shapes = {
        "digits": (1, 8, 8),
        "fashion-mnist": (1, 28, 28),
        "cifar10": (3, 32, 32),
        "cifar100": (3, 32, 32),
    }
    founder = PRESETS[name].founder()
    assert PRESETS[name].config.preset == name
    assert founder.input_shape == shapes.get(name, (3, 32, 32))
    assert founder.num_classes == (100 if name == "cifar100" else 10)
