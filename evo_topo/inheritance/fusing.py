"""Weight and bias of the layer that two fused ones become."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evo_topo.inheritance.gathering import resize_taps


def fused_state(first: nn.Module, second: nn.Module, parallel: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of one layer that computes what two do.

    Args:
        first: A convolution or linear layer.
        second: Another, or a BatchNorm, which is taken in evaluation mode.
        parallel: Whether both read the same and are added, rather than the second reading the first.
        like: The fused layer's weight, for its shape.
    """
    weight, bias = _dense(first, like), bias_of(first)
    if isinstance(second, _BatchNorm):
        return normed(weight, bias, second)
    if parallel:
        terms = [resize_taps(_dense(layer, like), like.shape[2:]) for layer in (first, second)]
        return terms[0] + terms[1], bias + bias_of(second)
    weight, after = _dense(first, None), _dense(second, None)
    # what a constant map becomes, summed over all taps of the second
    shift = after.flatten(2).sum(2) @ bias if after.dim() > 2 else after @ bias
    if after[0, 0].numel() == 1:
        product = torch.einsum("om,mi...->oi...", after.flatten(1), weight)
    else:
        product = torch.einsum("om...,mi->oi...", after, weight.flatten(1))
    return product, shift + bias_of(second)


def normed(weight: Tensor, bias: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of a layer with the BatchNorm behind it folded in, in evaluation mode."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() + scale * (bias - norm.running_mean.double())
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), shift


def bias_of(layer: nn.Module) -> Tensor:
    """The bias of a layer in float64; zeros where it has none."""
    assert isinstance(layer.weight, Tensor)
    if isinstance(layer.bias, Tensor):
        return layer.bias.double()
    return layer.weight.new_zeros(len(layer.weight), dtype=torch.float64)


def _dense(layer: nn.Module, like: Tensor | None) -> Tensor:
    """The weight of a layer in float64, with zeros between the groups unless the fused one has them too."""
    assert isinstance(layer.weight, Tensor)
    weight = layer.weight.double()
    groups = layer.groups if isinstance(layer, nn.Conv1d | nn.Conv2d) else 1
    if groups == 1 or (like is not None and like.shape[1] == weight.shape[1]):
        return weight
    blocks = weight.reshape(groups, -1, *weight.shape[1:])  # groups, out, in, taps
    rows = torch.zeros(groups, *blocks.shape[1:2], groups, *blocks.shape[2:]).to(blocks)
    index = torch.arange(groups, device=weight.device)
    rows[index, :, index] = blocks
    return rows.flatten(2, 3).flatten(0, 1)
