import copy

import pytest
import torch
from hypothesis import given
from torch import nn

from evo_topo.saliency import (
    GateProbe,
    LabelGradients,
    ablation,
    apoz,
    brute_force,
    gate_statistics,
    ggn_diagonal,
    masked,
    mean_loss,
)
from evo_topo.units import unit_table
from tests.gated import changed_logits, dense_jacobian
from tests.reference import masked_forward, random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, genomes


def check_derivatives(genome):
    model, inputs = randomised(genome), random_inputs(genome)
    probe = GateProbe(model, genome)
    expected = dense_jacobian(model, genome, inputs, probe)
    with probe:
        logits = probe.forward(inputs)
        seeds = torch.randn(2, *logits.shape, generator=torch.Generator().manual_seed(1)).double()
        for seed in seeds:
            found = probe.derivatives(logits, seed)
            assert relative_error(found, torch.einsum("nc,ncw->nw", seed, expected)) < 1e-9
    assert relative_error(logits, model(inputs)) < 1e-12


@pytest.mark.parametrize("name", EXAMPLES)
def test_derivatives_are_those_of_explicit_gates(name):
    check_derivatives(EXAMPLES[name]())


@given(genomes())
def test_derivatives_are_right_for_any_topology(genome):
    check_derivatives(genome)


@torch.no_grad()
@pytest.mark.parametrize("name", ["small_resnet", "dense", "squeeze_excitation", "one_dimensional"])
def test_derivatives_equal_finite_differences(name):
    genome = EXAMPLES[name]()
    model, inputs, step = randomised(genome), random_inputs(genome), 1e-6
    with GateProbe(model, genome) as probe:
        logits = probe.forward(inputs)
        seed = torch.zeros_like(logits)
        seed[:, 0] = 1
        found = probe.derivatives(logits, seed)
    for column, direction in enumerate(torch.eye(probe.width).double() * step):
        after = changed_logits(model, genome, inputs, probe, direction)[:, 0]
        before = changed_logits(model, genome, inputs, probe, -direction)[:, 0]
        assert found[:, column] == pytest.approx((after - before) / (2 * step), rel=1e-4, abs=1e-6)


@given(genomes())
def test_there_is_a_column_for_each_unit(genome):
    probe = GateProbe(randomised(genome), genome)
    assert {name: where.stop - where.start for name, where in probe.columns.items()} == {
        group.name: group.width for group in unit_table(genome).groups.values()
    }
    columns = [c for where in probe.columns.values() for c in range(where.start, where.stop)]
    assert columns == list(range(probe.width))


@pytest.mark.parametrize("name", EXAMPLES)
def test_masked_units_are_zero_wherever_they_are_mixed(name):
    genome = EXAMPLES[name]()
    model, inputs = randomised(genome), random_inputs(genome)
    groups = unit_table(genome).groups.values()
    for units in [{g.name: [g.width - 1]} for g in groups] + [{g.name: [0] for g in groups}]:
        with masked(model, genome, units):
            found = model(inputs)
        assert relative_error(found, masked_forward(model, genome, units.items(), inputs)) < 1e-12


def state(model):
    """All that a measurement might leave changed."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [value.tolist() for value in model.state_dict().values()],
    )


def mixed_model(genome):
    """Partly frozen: one module in evaluation mode, one parameter without gradient, one foreign hook."""
    model = randomised(genome).train()
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.eval()
    norm.weight.requires_grad_(False)
    norm.register_forward_hook(lambda *_: None)
    return model


def probe_once(model, genome, inputs, targets):
    with GateProbe(model, genome) as probe:
        assert not any(module.training for module in model.modules())
        probe.derivatives(logits := probe.forward(inputs), torch.ones_like(logits))


MEASUREMENTS = {
    "probe": probe_once,
    "gate_statistics": gate_statistics,
    "label_gradients": LabelGradients,
    "ggn_diagonal": lambda model, genome, inputs, targets: ggn_diagonal(model, inputs),
    "mean_loss": lambda model, genome, inputs, targets: mean_loss(model, inputs, targets),
    "ablation": lambda model, genome, *data: ablation(model, genome, {"conv1": [0]}, *data),
    "brute_force": brute_force,
    "apoz": lambda model, genome, inputs, targets: apoz(model, genome, inputs),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_leaves_the_model_as_it_was(name):
    genome = EXAMPLES["small_resnet"]()
    model, inputs = mixed_model(genome), random_inputs(genome)
    before = copy.deepcopy(state(model))
    MEASUREMENTS[name](model, genome, inputs, torch.arange(4))
    assert state(model) == before
    with pytest.raises((RuntimeError, ValueError), match=r"channels|zip\(\)"):
        MEASUREMENTS[name](model, genome, inputs[:, :2], torch.arange(4))
    assert state(model) == before


@pytest.mark.parametrize("enter", [GateProbe, lambda *args: masked(*args, {"conv1": [0], "conv14": [0]})])
def test_a_model_of_another_genome_is_left_alone(enter):
    genome = EXAMPLES["small_resnet"]()
    model = mixed_model(genome)
    del model.linear22
    before = copy.deepcopy(state(model))
    with pytest.raises(AttributeError, match="linear22"), enter(model, genome):
        pass
    assert state(model) == before
