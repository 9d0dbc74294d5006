from typing import NamedTuple

import pytest
from torch import Tensor, nn

from evo_topo.datasets import load_dataset
from evo_topo.genome import Genome
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.training import train
from populations.founders import conv_net


class Trained(NamedTuple):
    model: nn.Module
    genome: Genome
    inputs: Tensor
    targets: Tensor


@pytest.fixture(scope="session")
def trained():
    """A small network that has learned the digits, in float64, and examples to judge it on."""
    task = load_dataset("digits")
    genome = conv_net((1, 8, 8), 10, (8, 12, 12), (1, 2, 1))
    model = build(genome)
    train(model, task, Recipe(examples=6000, batch_size=32, learning_rate=0.05), seed=0)
    inputs = task.normalise(task.train.inputs[:300]).double()
    return Trained(model.double(), genome, inputs, task.train.targets[:300])
