"""Gradients keep the layout of what they belong to, and their values."""

import pytest
import torch
from torch import Tensor, nn

from evo_topo.genome import Genome
from evo_topo.layouts import keep_layouts
from evo_topo.ops import Add, Concat, Multiply
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.training import train
from populations.founders import conv_net, residual_net
from populations.landmarks import squeeze_net
from tests.small import small_task
from tests.strategies import Sketch

SHAPE = (3, 16, 16)
FOUNDERS = {
    "flattened": conv_net(SHAPE, 5, (6, 7), (1, 2), pooled=False),
    "averaged": conv_net(SHAPE, 5, (6, 7), (1, 2)),
    "sampled": residual_net(SHAPE, 5, (4, 6), 1),
    "concatenated": squeeze_net(SHAPE, 5, 4, [[(2, 3)]]),
}


def channels_last(genome: Genome) -> nn.Module:
    return build(genome, seed=3).double().to(memory_format=torch.channels_last)


def gradients(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, bool]]:
    """Of the weights; and whether each activation's comes to it in channels_last."""
    layouts: dict[str, bool] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):

            def watch(module: nn.Module, args: object, made: Tensor, name: str = name) -> None:
                def note(gradient: Tensor) -> None:
                    layouts[name] = gradient.is_contiguous(memory_format=torch.channels_last)

                made.register_hook(note)

            handles.append(module.register_forward_hook(watch))
    model.zero_grad()
    inputs = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model(inputs.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    for handle in handles:
        handle.remove()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}, layouts


@pytest.mark.parametrize("name", FOUNDERS)
def test_gradients_come_in_channels_last_with_the_same_values(name: str) -> None:
    model = channels_last(FOUNDERS[name])
    expected, before = gradients(model)
    assert not all(before.values())  # else torch does it by itself, and this is not needed
    handles = keep_layouts(model)
    found, after = gradients(model)
    assert all(after.values())
    for weight, gradient in expected.items():
        torch.testing.assert_close(found[weight], gradient)
    for handle in handles:
        handle.remove()
    assert gradients(model)[1] == before


def test_sequences_and_vectors_stay_as_they_are() -> None:
    founder = conv_net((2, 16), 3, (4, 4), (1, 2), pooled=False)
    model = build(founder).double()
    inputs = torch.randn(4, 2, 16, dtype=torch.float64)
    keep_layouts(model)
    model(inputs).sum().backward()  # channels_last is of images alone: torch would refuse it
    assert keep_layouts(nn.Sequential(nn.Flatten(), nn.Linear(32, 3))) == []


def test_a_training_takes_its_hooks_away() -> None:
    task = small_task()
    model = build(conv_net((1, 8, 8), 10, (4, 4), (1, 2), pooled=False))
    train(model, task, Recipe(examples=128, learning_rate=0.1), 0)
    assert not any(module._forward_hooks for module in model.modules())


def test_sums_that_share_their_terms_are_looked_at_once():
    net = Sketch(3, 4, 4)
    one, other = net.conv(net.input, 2), net.conv(net.input, 2)
    for _ in range(40):  # 2^40 ways through
        one, other = net.add(Add(), one, other), net.add(Multiply(), one, other)
    model = build(net.end(net.add(Concat(), one, other)))
    assert len(keep_layouts(model)) == 3  # the two convolutions, and the pooling before the Flatten


def test_modules_that_make_several_values_are_passed_by():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            made, _ = self.lstm(x)
            return torch.flatten(made, 1)

    model = torch.fx.symbolic_trace(Recurrent())
    assert keep_layouts(model)  # it is asked for what the module makes
    model(torch.randn(2, 5, 4)).sum().backward()
    assert model.lstm.weight_ih_l0.grad is not None
