import copy

import pytest
import torch
from torch import nn

from evo_topo.bfloat16 import Bfloat16Copies, Float32Layers, has_fast_bfloat16
from evo_topo.binary import BinaryConv2d


class Net(nn.Module):
    """Layers with copies, layers without, a weight that two share, and a layer that nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.binary = BinaryConv2d(8, 8, 3, padding=1)
        self.head, self.again, self.idle = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.again.weight = self.head.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        maps = self.binary(self.norm(self.conv(inputs)).relu())
        return self.again(self.head(maps.mean((2, 3))).relu())


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def batch() -> torch.Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def backward(model: nn.Module, inputs: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        loss = model(inputs).float().square().mean()
    loss.backward()


def plain_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """What autocast alone gives."""
    backward(model, batch())
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx2": True}, False),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch, found, expected) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is expected


def test_copies_give_the_gradients_of_autocast() -> None:
    plain, model = net(), net()
    weights = dict(model.named_parameters())
    copies = Bfloat16Copies(model)
    for _ in range(2):  # the second time from weights that have moved, and without the first gradients
        expected = plain_gradients(plain)
        copies.refresh()
        backward(model, batch())
        copies.hand_over()
        for name, weight in weights.items():
            found = weight.grad
            if name.startswith("idle"):
                assert found is None
            elif name == "head.weight":  # of two uses, summed in bfloat16
                torch.testing.assert_close(found, expected[name], rtol=0.02, atol=1e-4)
            else:
                assert found is not None
                assert found.dtype == torch.float32
                assert torch.equal(found, expected[name])
        with torch.no_grad():
            for one in (*plain.parameters(), *weights.values()):
                one.mul_(0.9)
                one.grad = None


def test_weights_come_back_as_they_were() -> None:
    model = net()
    before, values = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    copies = Bfloat16Copies(model)
    held = dict(model.named_parameters())
    assert {name for name in held if held[name].dtype == torch.bfloat16} == {
        *("conv.weight", "conv.bias", "head.weight", "head.bias", "again.bias", "idle.weight", "idle.bias")
    }
    assert model.again.weight is model.head.weight
    assert all(held[name] is before[name] for name in held if held[name].dtype == torch.float32)
    backward(model, batch())
    copies.hand_over()
    copies.close()
    after = dict(model.named_parameters())
    assert all(after[name] is before[name] for name in before)
    assert all(after[name].grad is None for name in after if held[name].dtype == torch.bfloat16)
    weights = {name for name, _ in model.named_parameters()}
    assert all(
        torch.equal(value, values[name]) for name, value in model.state_dict().items() if name in weights
    )


def test_a_network_without_such_layers_has_no_copies() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    copies = Bfloat16Copies(model)
    copies.refresh()
    model(torch.randn(4, 3)).sum().backward()
    copies.hand_over()
    copies.close()
    assert model[0].weight.grad is not None


def slow_convolutions() -> nn.Sequential:
    """Each channel by itself, with a stride or another window; and layers with fast kernels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
            nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
            nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
            nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3),
        )


def test_layers_without_kernels_in_bfloat16_compute_in_float32() -> None:
    model, plain = slow_convolutions(), slow_convolutions()
    copies, exceptions = Bfloat16Copies(model), Float32Layers(model)
    made = []
    for layer in model:
        layer.register_forward_hook(lambda layer, args, value: made.append((args[0], value)))
    expected = plain_gradients(plain)
    weights = dict(model.named_parameters())
    backward(model, batch())
    assert {value.dtype for _, value in made} == {torch.bfloat16}  # the others read what they would
    for (read, value), layer in list(zip(made, plain, strict=True))[2:4]:
        in_full = layer(read.detach().float())  # with weights that were not rounded
        torch.testing.assert_close(value.float(), in_full, rtol=0.02, atol=0.01)
    for name, weight in weights.items():
        torch.testing.assert_close(weight.grad.float(), expected[name], rtol=0.05, atol=0.02)
    exceptions.close()
    copies.close()
    assert torch.equal(model(batch()), plain(batch()))


def test_what_is_float32_and_what_is_not(monkeypatch) -> None:
    seen: list[tuple[int, torch.dtype]] = []
    forward = nn.Conv2d._conv_forward

    def watched(layer, inputs, weight, bias):
        seen.append((number[layer], inputs.dtype))
        return forward(layer, inputs, weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", watched)
    model = slow_convolutions()
    number = {layer: at for at, layer in enumerate(model)}
    exceptions = Float32Layers(model)
    backward(model, batch())
    exceptions.close()
    assert [dtype for at, dtype in seen if at in (1, 4)] == [torch.bfloat16] * 2  # wider groups have kernels
    assert [dtype for at, dtype in seen if at in (2, 3)] == [torch.float32] * 2
    seen.clear()
    backward(model, batch())
    assert [dtype for at, dtype in seen if at in (2, 3)] == [torch.bfloat16] * 2
