"""Nearest factors of a layer's weight, in closed form.

By Eckart & Young (1936) the truncated singular value decomposition is the nearest matrix of a rank, in the
sum of squares. Each form of factors is that statement about one unfolding of the weight.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


def nearest_product(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (..., m, rank) and (..., rank, n) whose product is nearest to a matrix (..., m, n).

    The singular values are shared evenly, so that both factors have one scale.
    """
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = s[..., :rank].sqrt()
    return u[..., :rank] * root[..., None, :], root[..., None] * v[..., :rank, :]


def reduce_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A 1x1 and then the window: the unfolding along the input channels.

    Args:
        weight: Of the layer, (out, in, *taps).
        rank: Channels between.

    Returns:
        Weights (rank, in, 1...) and (out, rank, *taps).
    """
    by_input = weight.movedim(1, -1)
    left, right = nearest_product(by_input.reshape(-1, weight.shape[1]), rank)
    window = left.reshape(*by_input.shape[:-1], rank).movedim(-1, 1)
    return _as_point(right, weight), window


def expand_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The window and then a 1x1: the unfolding along the output channels.

    Returns:
        Weights (rank, in, *taps) and (out, rank, 1...).
    """
    left, right = nearest_product(weight.flatten(1), rank)
    return right.reshape(rank, *weight.shape[1:]), _as_point(left, weight)


def separable_factors(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A depthwise window and then a 1x1: for each input channel the nearest matrix of rank one.

    Returns:
        Weights (in, 1, *taps) and (out, in, 1...).
    """
    by_input = weight.flatten(2).transpose(0, 1)  # in, out, taps
    left, right = nearest_product(by_input, 1)
    depthwise = right.reshape(weight.shape[1], 1, *weight.shape[2:])
    return depthwise, _as_point(left[..., 0].T, weight)


def fire_factors(weight: Tensor, rank: int, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """A 1x1, and then a 1x1 for the first outputs beside the window for the others.

    What the first outputs lose beyond their middle tap no choice of the factors can mend, so the nearest
    ones are those of all rows that are left, together.

    Args:
        weight: Of the convolution, (out, in, *taps), of odd extents.
        rank: Channels between.
        half: How many outputs a 1x1 makes.

    Returns:
        Weights (rank, in, 1...), (half, rank, 1...) and (out - half, rank, *taps).
    """
    taps = weight.shape[2:]
    middle = weight[:half].flatten(2)[:, :, prod(taps) // 2]
    others = weight[half:].movedim(1, -1)
    rows = torch.cat([middle, others.reshape(-1, weight.shape[1])])
    left, right = nearest_product(rows, rank)
    window = left[half:].reshape(*others.shape[:-1], rank).movedim(-1, 1)
    return _as_point(right, weight), _as_point(left[:half], weight), window


def _as_point(matrix: Tensor, weight: Tensor) -> Tensor:
    """A matrix as the weight of a 1x1 convolution, or of a linear layer, as the weight's dimensions ask."""
    return matrix.reshape(*matrix.shape, *[1] * (weight.dim() - 2))
