"""Augmentation of a whole batch of images at once."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional


def draw_moves(count: int, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Draws how each image of a batch is moved.

    Args:
        count: Images in the batch.
        padding: Largest shift in pixels, in each direction.
        flip: Whether to mirror left to right with probability one half.
        generator: Source of randomness.

    Returns:
        For each image: rows and columns to shift by, less the padding, and 1 where it is mirrored, int64
        (count, 3), on the generator's device.
    """
    draw = partial(torch.randint, size=(count,), generator=generator, device=generator.device)
    none = torch.zeros(count, dtype=torch.int64, device=generator.device)
    rows, columns = (draw(2 * padding + 1), draw(2 * padding + 1)) if padding else (none, none)
    return torch.stack((rows, columns, draw(2) if flip else none), 1)


def shift_and_flip(images: Tensor, moves: Tensor, padding: int) -> Tensor:
    """Shifts each image by its own offset and mirrors some.

    Args:
        images: Raw images (N, C, H, W), of any type.
        moves: From `draw_moves`, (N, 3), on the same device.
        padding: Largest shift in pixels; what moves in is zero.

    Returns:
        Images of the same shape and type.
    """
    count, _, height, width = images.shape
    rows, columns, mirrored = moves[:, :1], moves[:, 1:2], moves[:, 2:]
    if not padding:  # mirroring alone needs no index for every pixel
        return torch.where(mirrored[:, :, None, None] == 1, images.flip(3), images)
    rows = torch.arange(height, device=images.device) + rows
    columns = torch.arange(width, device=images.device) + columns
    columns = torch.where(mirrored == 1, columns.flip(1), columns)
    padded = functional.pad(images, (padding,) * 4)
    example = torch.arange(count, device=images.device)[:, None, None]
    # indexing around the channel slice yields (N, H, W, C): channels_last, once permuted
    return padded[example, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
