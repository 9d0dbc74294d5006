"""What runs behind a joint against the forward pass, node by node."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.phenotype import node_value
from evo_topo.saliency.behind import Behind
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, genomes


def values_of(genome, model, inputs, changed=None):
    """Every activation, where some may have other values."""
    values = dict(changed or {})
    for node in genome.nodes:
        if node.name not in values:
            reads = [values[name] for name in node.inputs]
            values[node.name] = node_value(node, model, reads) if reads else inputs
    return values


@torch.no_grad()
def check(genome, joint):
    model, inputs = randomised(genome).eval(), random_inputs(genome, 3)
    values = values_of(genome, model, inputs)
    before = {name: value.clone() for name, value in values.items()}
    behind = Behind(model.train(), genome)
    assert all(module.training for module in model.modules())
    model.eval()
    value = values[joint] + torch.randn_like(values[joint])
    kept = value.clone()
    expected = values_of(genome, model, inputs, {joint: value.clone()})[genome.nodes[-1].name]
    for _ in range(2):  # it leaves what it reads as it was
        assert relative_error(behind.logits(joint, values, value), expected) < 1e-10
    both = behind.logits(joint, values, torch.cat([value, values[joint]]))
    assert relative_error(both[:3], expected) < 1e-10
    assert relative_error(both[3:], values[genome.nodes[-1].name]) < 1e-10
    assert torch.equal(value, kept)
    assert all(torch.equal(values[name], before[name]) for name in values)


@given(genomes(), st.data())
def test_the_answer_is_that_of_the_whole_network_with_the_value_in_its_place(genome, data):
    check(genome, data.draw(st.sampled_from([node.name for node in genome.nodes])))


@pytest.mark.parametrize(
    "name", ["small_resnet", "dense", "squeeze_excitation", "sparse", "binary", "mobile"]
)
def test_the_same_on_examples_at_every_joint(name):
    genome = EXAMPLES[name]()
    for node in genome.nodes:
        check(genome, node.name)
