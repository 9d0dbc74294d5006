"""Computing in bfloat16: whether it pays on a device, and copies of the weights to compute with."""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn

from evo_topo.sampling import SamplingConv1d, SamplingConv2d

_LAYERS = {nn.Linear, nn.Conv1d, nn.Conv2d, SamplingConv1d, SamplingConv2d}
"""Layers that autocast lets compute in bfloat16 and that do nothing else with their weights. Their subclasses
may, as binary layers do."""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays on ``device``: on the CPU it needs AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # an older torch does not tell, and then trains in float32
        found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


class Bfloat16Copies:
    """Copies of a network's weights that stand in their place while it trains.

    The weights proper stay float32 and are what an optimiser moves (mixed precision: Micikevicius et al.
    2018). Autocast computes the same, but casts weight by weight: here one call casts all of them, and one
    call all of their gradients.

    Args:
        model: The network; until `close` its linear and convolutional layers hold the copies.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        copies: dict[nn.Parameter, nn.Parameter] = {}  # one for each weight, whoever shares it
        for module in model.modules():
            for name, weight in module._parameters.items() if type(module) in _LAYERS else ():
                if weight is not None and weight.requires_grad and weight.dtype == torch.float32:
                    copies.setdefault(weight, nn.Parameter(weight.detach().to(torch.bfloat16)))
                    self._places.append((module, name, weight))
        for module, name, weight in self._places:
            setattr(module, name, copies[weight])
        self._weights: list[Tensor] = list(copies)
        self._copies = list(copies.values())
        self._gradients = [torch.empty_like(weight) for weight in self._weights]

    def refresh(self) -> None:
        """Casts the weights anew, and forgets the gradients of the copies."""
        for copy in self._copies:
            copy.grad = None
        if self._copies:
            torch._foreach_copy_([copy.detach() for copy in self._copies], self._weights)

    def hand_over(self) -> None:
        """Gives the weights the gradients of their copies, in float32; none to those whose copy has none."""
        given: list[Tensor] = []
        taken: list[Tensor] = []
        for weight, copy, gradient in zip(self._weights, self._copies, self._gradients, strict=True):
            weight.grad = None if copy.grad is None else gradient
            if copy.grad is not None:
                given.append(gradient)
                taken.append(copy.grad)
        if given:
            torch._foreach_copy_(given, taken)

    def close(self) -> None:
        """Puts the weights proper back where they belong."""
        for module, name, weight in self._places:
            weight.grad = None
            setattr(module, name, weight)


class Float32Layers:
    """Lets layers compute in float32 that a CPU has no kernels for in bfloat16, until `close`.

    Where every channel is convolved by itself, oneDNN has some for windows of 3 x 3 without stride. Others
    take 3 to 30 times as long as in float32 (2 to 32 channels, way back included, torch 2.14).

    Args:
        model: The network, on any device; on a GPU nothing changes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) and _is_slow(m)]
        for layer in self._layers:
            layer._conv_forward = MethodType(_in_float32, layer)  # type: ignore[method-assign]

    def close(self) -> None:
        """Lets them compute as before."""
        for layer in self._layers:
            del layer._conv_forward


def _is_slow(layer: nn.Conv2d) -> bool:
    if type(layer) is not nn.Conv2d or layer.weight.device.type != "cpu":
        return False
    if layer.groups == 1 or layer.groups != layer.in_channels:
        return False
    return layer.kernel_size != (3, 3) or layer.stride != (1, 1)


def _in_float32(layer: nn.Conv2d, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        bias = None if bias is None else bias.float()
        made: Tensor = nn.Conv2d._conv_forward(layer, inputs.float(), weight.float(), bias)
    return made.to(inputs.dtype)
