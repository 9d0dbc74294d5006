import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evo_topo.edits import (
    KINDS,
    AddUnits,
    Fuse,
    GrowKernel,
    PruneUnits,
    ShrinkKernel,
    SplitUnits,
    Trade,
    legal_edits,
)
from evo_topo.inheritance import inherit, inherit_optimizer_state
from evo_topo.masked import Masked
from evo_topo.phenotype import build
from tests.reference import random_inputs, randomised
from tests.strategies import EXAMPLES, genome_edits, perceptron, versatile


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)


def stepped(make, model, genome, steps=1):
    """An optimiser of the network that has seen some gradients, without moving the weights."""
    optimizer = make(model)
    weights = copy.deepcopy(model.state_dict())
    for _ in range(steps):
        optimizer.zero_grad()
        backward(model, genome)
        optimizer.step()
        model.load_state_dict(weights)
    return optimizer


def backward(model, genome):
    inputs = random_inputs(genome, 8)
    logits = model(inputs)
    nn.functional.cross_entropy(logits, torch.arange(8) % logits.shape[1]).backward()


def inherited(make, model, genome, edit, steps=1):
    optimizer = stepped(make, model, genome, steps)
    child_model = inherit(model, genome, edit)
    child_optimizer = make(child_model)
    inherit_optimizer_state(optimizer, child_optimizer, model, child_model, genome, edit)
    return child_model, child_optimizer


@pytest.mark.parametrize("kind", [SplitUnits, GrowKernel], ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_inherited_momentum_is_the_gradient_that_the_child_has(kind, data):
    """Where the function is kept, kept parameters have the child's own gradients, copies too."""
    genome, edit = data.draw(genome_edits(kind))
    model = randomised(genome)
    child_model, optimizer = inherited(sgd, model, genome, edit)
    backward(child_model, edit.apply(genome))
    scale = float(max(p.grad.abs().max() for p in child_model.parameters()))
    old, buffers = dict(model.named_parameters()), dict(child_model.named_buffers())
    for name, parameter in child_model.named_parameters():
        momentum, gradient = optimizer.state[parameter]["momentum_buffer"], parameter.grad.clone()
        if kind is GrowKernel:  # the border taps are new
            borders = [(n - m) // 2 for n, m in zip(parameter.shape, old[name].shape, strict=True)]
            inner = tuple(slice(b, n - b) for b, n in zip(borders, parameter.shape, strict=True))
            kept = torch.zeros_like(gradient)
            kept[inner] = gradient[inner]
            gradient = kept
        if name.removesuffix("weight") + "mask" in buffers:  # connections of weight zero are new
            gradient = gradient * (parameter != 0)
        assert torch.allclose(momentum, gradient, rtol=1e-8, atol=1e-10 * scale)


def test_second_moments_of_copies_are_squares_of_their_share():
    genome = perceptron()
    edit = SplitUnits((("linear1", (0,)),), 0.75)
    _, child_optimizer = inherited(adam, randomised(genome), genome, edit)
    first, squares = (
        child_optimizer.state[child_optimizer.param_groups[0]["params"][0]][key]
        for key in ("exp_avg", "exp_avg_sq")
    )
    assert torch.allclose(3 * first[1], first[0])
    assert torch.allclose(9 * squares[1], squares[0])
    assert first[0].abs().max() > 0


@pytest.mark.parametrize("make", [sgd, adam])
def test_kept_units_keep_their_moments_and_new_ones_have_none(make):
    genome = versatile()
    model = randomised(genome)
    before = stepped(make, model, genome, 3)
    keys = [k for k, v in before.state[model.get_submodule("conv4").weight].items() if v.dim() > 0]
    assert keys
    pruned, after = inherited(make, model, genome, PruneUnits((("conv1", (1, 3)),)), 3)
    rows = [0, 2, 4, 5]
    for key in keys:
        old = before.state[model.get_submodule("conv1").weight][key]
        assert torch.equal(after.state[pruned.get_submodule("conv1").weight][key], old[rows])
        old = before.state[model.get_submodule("conv4").weight][key]
        assert torch.equal(after.state[pruned.get_submodule("conv4").weight][key], old[:, rows])
    wide, after = inherited(make, model, genome, AddUnits("conv1", 2), 3)
    for key in keys:
        old = before.state[model.get_submodule("conv1").weight][key]
        new = after.state[wide.get_submodule("conv1").weight][key]
        assert torch.equal(new[:6], old)
        assert not new[6:].any()
        new = after.state[wide.get_submodule("conv4").weight][key]
        assert not new[:, 6:].any()


def test_taps_and_trades():
    genome = versatile()
    model = randomised(genome)
    old = stepped(sgd, model, genome).state[model.get_submodule("conv1").weight]["momentum_buffer"]
    child, after = inherited(sgd, model, genome, ShrinkKernel("conv1"))
    assert torch.equal(
        after.state[child.get_submodule("conv1").weight]["momentum_buffer"], old[..., 1:2, 1:2]
    )
    edit = Trade(ShrinkKernel("conv1"), AddUnits("conv1", 2))
    child, after = inherited(sgd, model, genome, edit)
    momentum = after.state[child.get_submodule("conv1").weight]["momentum_buffer"]
    assert torch.equal(momentum[:6], old[..., 1:2, 1:2])
    assert not momentum[6:].any()


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_child_trains_on_with_what_it_inherits(kind, make):
    genome = versatile()
    edit = next(legal_edits(genome, (kind,)))
    model, child = randomised(genome), edit.apply(genome)
    child_model, optimizer = inherited(make, model, genome, edit, 2)
    for parameter, state in optimizer.state.items():
        assert all(value.shape in (parameter.shape, ()) for value in state.values())
    backward(child_model, child)
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in child_model.parameters())
    for layer in child_model.modules():
        if isinstance(layer, Masked):
            assert not layer.weight[~layer.mask].any()


def test_new_layers_start_without_state():
    genome = EXAMPLES["strided"]()
    edit = next(legal_edits(genome, (Fuse,)))
    child_model, optimizer = inherited(adam, randomised(genome), genome, edit)
    fused = edit.fused(genome).name
    without = {name for name, p in child_model.named_parameters() if p not in optimizer.state}
    assert {name.split(".")[0] for name in without} == {fused}


def test_an_optimiser_of_another_kind_is_refused():
    genome = perceptron()
    model = build(genome)
    optimizer = torch.optim.RMSprop(model.parameters())
    model(torch.zeros(2, 5)).sum().backward()
    optimizer.step()
    edit = PruneUnits((("linear1", (0,)),))
    child_model = inherit(model, genome, edit)
    with pytest.raises(ValueError, match="keeps square_avg; expected only momentum_buffer"):
        inherit_optimizer_state(
            optimizer, torch.optim.RMSprop(child_model.parameters()), model, child_model, genome, edit
        )
