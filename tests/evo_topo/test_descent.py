"""Descent against SGD with Nesterov momentum written out, in float64."""

import pytest
import torch
from torch import nn

from evo_topo.descent import Descent
from evo_topo.recipe import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_nesterov(momentum: float) -> None:
    torch.manual_seed(0)
    # a bias, a matrix, BatchNorm, and filters of one weight each; the rest decays
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).double()
    model.to(memory_format=torch.channels_last)
    descent = Descent(model, Recipe(examples=64, learning_rate=1, momentum=momentum, weight_decay=0.3), CPU)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    momenta = dict.fromkeys(expected, torch.zeros((), dtype=torch.float64))
    for rate in (0.1, 0.2, 0.05):
        descent.set_rate(rate)
        descent.forget_gradients()
        for name, parameter in model.named_parameters():
            if rate == 0.2 and name == "2.bias":  # nothing reaches it: it stays, and so does its momentum
                continue
            parameter.grad = torch.randn_like(parameter)
            decay = 0.3 if name == "2.weight" else 0.0
            gradient = parameter.grad + decay * expected[name]
            momenta[name] = momentum * momenta[name] + gradient
            expected[name] = expected[name] - rate * (gradient + momentum * momenta[name])
        descent.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-12)


def test_nothing_moves_once_gradients_are_forgotten() -> None:
    model = nn.Linear(3, 2)
    descent = Descent(model, Recipe(examples=64, learning_rate=1), CPU)
    model(torch.ones(1, 3)).sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    descent.forget_gradients()
    descent.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert descent.parameters == [model.weight, model.bias]
