"""Statistics of new BatchNorm layers and channels, from data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evo_topo.hooks import in_mode


@torch.no_grad()
def settle_norms(model: nn.Module, new: Mapping[str, Sequence[int] | None], inputs: Tensor) -> None:
    """Sets the statistics of BatchNorm layers from data, one after the other, in place.

    Scale and shift of a whole new layer follow its statistics such that in evaluation mode it computes
    what it did, and nearly so in training mode. New channels of an old layer are normalised. The shift is a
    hair smaller than that, so that no rounding lifts a ReLU's zero, whose sign a binary layer may read.

    Args:
        model: The network.
        new: By name, in the order of the forward pass: the new channels, or None where all are new.
        inputs: Network inputs (examples, *input_shape).
    """
    for name, channels in new.items():
        settle_norm(model.get_submodule(name), read_by(model, name, inputs), channels)


@torch.no_grad()
def settle_norm(norm: nn.Module, read: Tensor, channels: Sequence[int] | None) -> None:
    """The same for one BatchNorm, from what it reads, (examples, channels, ...)."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(read.transpose(0, 1).flatten(1), 1, correction=0)
    if channels is None:
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = gain * (mean - norm.running_mean)
        norm.bias.copy_(norm.bias + shift - 8 * torch.finfo(shift.dtype).eps * shift.abs())
        norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    at = slice(None) if channels is None else list(channels)
    norm.running_mean[at] = mean[at]
    norm.running_var[at] = variance[at]


def read_by(model: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """What a module reads in evaluation mode."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        with in_mode(model, training=False):
            model(inputs)
    finally:
        handle.remove()
    return seen[0]
