"""One step learns what its batch teaches."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from evo_topo.augmentation import draw_rectangles, erase
from evo_topo.batches import Batches
from evo_topo.bfloat16 import has_fast_bfloat16
from evo_topo.datasets import load_dataset
from evo_topo.recipe import Recipe
from evo_topo.stepping import Step


def test_weights_scale_what_each_example_teaches_and_its_loss_is_remembered() -> None:
    digits = load_dataset("digits")
    recipe = Recipe(examples=64 * 20, learning_rate=0.1, momentum=0, weight_decay=0, skip_easy=0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    reference = copy.deepcopy(model).double()
    index, weights = torch.arange(7, 71).flip(0), torch.linspace(0, 2, 64)
    step = Step(model, digits, recipe, None)
    assert step.last_losses is not None
    assert bool(step.last_losses.isnan().all())
    step.set_rate(0.1)
    step.load(Batches(index[None], None, weights[None], None))
    found = step()
    step.close()
    losses = [
        nn.functional.cross_entropy(
            reference(digits.normalise(digits.train.inputs[i : i + 1]).double()),
            digits.train.targets[i : i + 1],
        )
        for i in index.tolist()
    ]
    loss = sum(weight * one for weight, one in zip(weights.tolist(), losses, strict=True)) / 64
    loss.backward()
    tolerance = 2e-2 if has_fast_bfloat16(torch.device("cpu")) else 1e-5
    assert found.item() == pytest.approx(loss.item(), rel=tolerance)
    for moved, parameter in zip(model.parameters(), reference.parameters(), strict=True):
        expected = (parameter - 0.1 * parameter.grad).float()
        torch.testing.assert_close(moved, expected, rtol=0, atol=tolerance * 0.1)
    seen = step.last_losses[index]
    torch.testing.assert_close(seen, torch.stack(losses).detach().float(), rtol=tolerance, atol=tolerance)
    assert step.last_losses.isnan().sum() == len(digits.train.targets) - 64


def test_what_a_rectangle_hides_is_not_learned() -> None:
    digits, index = load_dataset("digits"), torch.arange(64)
    rectangles = draw_rectangles(64, 0.5, torch.Generator().manual_seed(0))
    inputs = digits.train.inputs.clone()
    inputs[:64] = erase(inputs[:64], rectangles)
    hidden = dataclasses.replace(digits, train=digits.train._replace(inputs=inputs))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    losses, weights = [], []
    for task, part in ((digits, rectangles[None]), (hidden, None), (digits, None)):
        twin = copy.deepcopy(model)
        step = Step(twin, task, Recipe(examples=64, learning_rate=0.1), None)
        step.set_rate(0.1)
        step.load(Batches(index[None], None, None, part))
        losses.append(step().item())
        step.close()
        weights.append(twin[1].weight)
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
