import pytest
import torch

from evo_topo.inheritance.connections import layer_obd
from evo_topo.ops import Conv, Linear
from evo_topo.saliency import weight_obd
from tests.reference import random_inputs, randomised
from tests.strategies import EXAMPLES


@pytest.mark.parametrize("name", ["one_dimensional", "grouped", "sparse", "perceptron", "squeeze_excitation"])
@pytest.mark.parametrize("curvature", ["exact", "sampled"])
def test_of_one_layer_it_is_the_same(name, curvature):
    genome = EXAMPLES[name]()
    model, inputs = randomised(genome), random_inputs(genome, 3)
    expected = weight_obd(model, inputs, curvature)
    layers = [node.name for node in genome.nodes if isinstance(node.op, Conv | Linear)]
    assert layers
    for layer in layers:
        found = layer_obd(model, layer, inputs, curvature)
        torch.testing.assert_close(found, expected[f"{layer}.weight"], rtol=1e-9, atol=1e-15)
