import copy

import pytest
import torch
from hypothesis import given
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


def momenta(genome, edit):
    """Of kept parameters: the parent's and the child's, origins by row, momentum, gradient, mask."""
    model = randomised(genome)
    child_model, optimizer = inherited(sgd, model, genome, edit)
    backward(child_model, edit.apply(genome))
    old, buffers = dict(model.named_parameters()), dict(child_model.named_buffers())
    rows = edit.channel_map(genome)
    for name, parameter in child_model.named_parameters():
        momentum = optimizer.state[parameter]["momentum_buffer"]
        origins = rows.get(name.rpartition(".")[0], range(len(parameter)))
        mask = buffers.get(name.removesuffix("weight") + "mask")
        yield old[name], parameter, torch.tensor(origins), momentum, parameter.grad, mask


@given(genome_edits(SplitUnits))
def test_copies_have_the_momentum_of_their_parent_between_them(drawn):
    """As they have its gradient; and each weight that reads them has all of its own."""
    found = list(momenta(*drawn))
    scale = float(max(gradient.abs().max() for *_, gradient, _ in found))
    for old, _, origins, momentum, gradient, mask in found:
        if mask is not None:  # connections are chosen anew
            continue
        of_parent = old.new_zeros(len(old), *momentum.shape[1:])
        expected, inherited_sum = (of_parent.index_add(0, origins, t) for t in (gradient, momentum))
        assert torch.allclose(inherited_sum, expected, rtol=1e-8, atol=1e-10 * scale)
        halves = torch.bincount(origins, minlength=len(old))[origins] > 1
        assert torch.allclose(momentum[~halves], gradient[~halves], rtol=1e-8, atol=1e-10 * scale)
        for origin in origins[halves].unique():
            first, second = momentum[origins == origin]
            assert torch.equal(first, second)


@given(genome_edits(GrowKernel))
def test_grown_kernels_have_their_own_gradient_as_momentum(drawn):
    found = list(momenta(*drawn))
    scale = float(max(gradient.abs().max() for *_, gradient, _ in found))
    for old, parameter, _, momentum, gradient, mask in found:
        borders = [(n - m) // 2 for n, m in zip(parameter.shape, old.shape, strict=True)]
        inner = tuple(slice(b, n - b) for b, n in zip(borders, parameter.shape, strict=True))
        kept = torch.zeros_like(gradient)  # the border taps are new
        kept[inner] = gradient[inner]
        if mask is not None:  # connections of weight zero are new
            kept = kept * (parameter != 0)
        assert torch.allclose(momentum, kept, rtol=1e-8, atol=1e-10 * scale)


def test_copies_divide_the_moments_of_their_parent():
    genome = perceptron()
    edit = SplitUnits((("linear1", (0,)),))
    model = randomised(genome)
    optimizer = stepped(adam, model, genome)
    child_model, child_optimizer = inherited(adam, model, genome, edit)
    for key in ("exp_avg", "exp_avg_sq"):
        old, new = (
            o.state[m.get_submodule("linear1").weight][key]
            for o, m in ((optimizer, model), (child_optimizer, child_model))
        )
        assert old[0].abs().max() > 0
        torch.testing.assert_close(new[:2], old[[0, 0]] / 2)
        torch.testing.assert_close(new[2:], old[1:])


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
