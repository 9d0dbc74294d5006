"""Weight and bias of the layer that two merged ones become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from evo_topo.inheritance.fusing import bias_of, normed
from evo_topo.inheritance.gathering import resize_taps


def merged_state(
    first: nn.Module, norms: Iterable[nn.Module], second: nn.Module, extents: Sequence[int], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of one layer for two, as if activations between were the identity.

    What the constant becomes at the border of a padded map is that of the middle.

    Args:
        first: A convolution or linear layer.
        norms: The BatchNorms between the two, in order.
        second: The other layer.
        extents: Of the map that the first reads; none for features.
        like: The merged layer's weight, for its shape.
    """
    assert isinstance(first.weight, Tensor)
    assert isinstance(second.weight, Tensor)
    weight, shift, after = first.weight.double(), bias_of(first), second.weight.double()
    for norm in norms:
        weight, shift = normed(weight, shift, norm)
    if not isinstance(first, nn.Conv1d | nn.Conv2d):
        return after @ weight, after @ shift + bias_of(second)
    if isinstance(second, nn.Linear):
        maps = after.reshape(len(after), len(weight), -1)  # places of each channel behind the Flatten
        found = _transposed(first, weight, maps, extents).flatten(1)
    else:
        maps = after.flatten(2)
        found = resize_taps(_window_product(weight, after, first.stride), like.shape[2:])
    return found, maps.sum(2) @ shift + bias_of(second)


def _window_product(first: Tensor, second: Tensor, stride: Sequence[int]) -> Tensor:
    """The window of two convolutions in turn: every tap of the second is the first's window, so far away."""
    taps = second.shape[2:]
    size = [(k - 1) * s + n for k, s, n in zip(taps, stride, first.shape[2:], strict=True)]
    found = first.new_zeros(len(second), first.shape[1], *size)
    for tap in product(*map(range, taps)):
        place = [slice(t * s, t * s + n) for t, s, n in zip(tap, stride, first.shape[2:], strict=True)]
        pixel = [slice(t, t + 1) for t in tap]
        weights = second[(slice(None), slice(None), *pixel)].flatten(1)
        found[(slice(None), slice(None), *place)] += torch.einsum("om,mi...->oi...", weights, first)
    return found


def _transposed(conv: nn.Conv1d | nn.Conv2d, weight: Tensor, maps: Tensor, extents: Sequence[int]) -> Tensor:
    """What weights on a convolution's map are on what it reads, (outputs, inputs, *extents)."""
    assert not isinstance(conv.padding, str)
    settings = list(zip(extents, conv.kernel_size, conv.stride, conv.padding, strict=True))
    made = [(n + 2 * p - k) // s + 1 for n, k, s, p in settings]
    # what no window reaches at the far end
    rest = [n + 2 * p - k - (m - 1) * s for m, (n, k, s, p) in zip(made, settings, strict=True)]
    run = functional.conv_transpose1d if len(made) == 1 else functional.conv_transpose2d
    maps = maps.reshape(*maps.shape[:2], *made)
    return run(maps, weight, None, conv.stride, conv.padding, rest)
