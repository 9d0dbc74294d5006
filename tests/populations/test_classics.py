import pytest
import torch

from evo_topo import build, count_bops, count_macs, count_params
from evo_topo.ops import Conv
from populations.classics import FOUNDERS

PUBLISHED = {
    # name: input shape, classes, parameters, MACs
    "lenet5": ((1, 32, 32), 10, 61_706, 416_520),  # LeCun et al. 1998, all maps of C3 connected
    "mlp": ((1, 28, 28), 10, 266_610, 266_200),  # LeNet-300-100: Han et al. 2015, table 3: 267 k
    "resnet20": ((3, 32, 32), 10, 0.27e6, 40.8e6),  # He et al. 2016, table 6
    "resnet56": ((3, 32, 32), 10, 0.85e6, 125.5e6),  # the same; MACs as in Li et al. 2017, table 1
    "vgg19": ((3, 32, 32), 10, 20.04e6, 398.5e6),  # Liu et al. 2017, table 1: 7.97e8 FLOPs
    "mobilenet_v2": ((3, 32, 32), 10, 2.24e6, 88.0e6),  # pytorch-cifar-models, mobilenetv2_x1_0
    "squeezenet": ((3, 224, 224), 1000, 1.2355e6, 349e6),  # torchvision, squeezenet1_1
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_founders_have_their_published_cost(name):
    shape, classes, params, macs = PUBLISHED[name]
    genome = FOUNDERS[name](shape, classes)
    assert count_params(genome) == pytest.approx(params, rel=0 if isinstance(params, int) else 0.01)
    assert count_macs(genome) == pytest.approx(macs, rel=0 if isinstance(macs, int) else 0.01)


def test_the_minimal_founder_is_one_small_convolution():
    genome = FOUNDERS["minimal"]((3, 32, 32), 10)
    assert count_params(genome) == 3 * 4 * 9 + 2 * 4 + 4 * 10 + 10
    assert count_macs(genome) == 32 * 32 * 3 * 4 * 9 + 40
    assert count_macs(FOUNDERS["minimal"]((5,), 3)) == 5 * 4 + 4 * 3


@pytest.mark.parametrize("name", FOUNDERS)
def test_founders_fit_every_image_set(name):
    for shape, classes in (((1, 28, 28), 10), ((3, 32, 32), 100)):
        genome = FOUNDERS[name](shape, classes)
        assert (genome.input_shape, genome.num_classes) == (shape, classes)
    assert build(genome).eval()(torch.randn(2, *shape)).shape == (2, 100)


@pytest.mark.parametrize("name", ["lenet5", "vgg19", "mobilenet_v2", "squeezenet", "binarynet"])
@pytest.mark.parametrize("shape", [(8,), (1, 100), (3, 4, 4)])
def test_founders_for_images_say_what_they_read(name, shape):
    with pytest.raises(ValueError, match=f"founder {name} reads images"):
        FOUNDERS[name](shape, 3)


def test_all_but_the_ends_of_binarynet_is_binary():
    genome = FOUNDERS["binarynet"]((3, 32, 32), 10)
    assert [node.op.binary for node in genome.nodes if isinstance(node.op, Conv)] == [False] + [True] * 5
    assert count_macs(genome) == 32 * 32 * 3 * 64 * 9 + 256 * 10 + count_bops(genome) // 64
