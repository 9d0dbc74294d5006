"""Augmentation of a whole batch of images at once."""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

ERASED_AREA = (0.02, 0.2)
"""Least and largest share of an image that a rectangle covers."""
ERASED_RATIO = 3.0
"""Largest ratio of a rectangle's sides, as shares of the image's."""


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


def draw_rectangles(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draws which rectangle each image of a batch loses (random erasing: Zhong et al. 2020).

    torchvision's own draws on the host, one rectangle for a whole batch, which a CUDA graph cannot replay.
    Areas are uniform within `ERASED_AREA`, the logarithm of the ratio of sides within that of `ERASED_RATIO`.

    Args:
        count: Images in the batch.
        probability: With which an image loses one.
        generator: Source of randomness.

    Returns:
        For each image: top, left, height and width as shares of its own height and width, float32 (count, 4),
        on the generator's device. Height and width are zero where nothing is lost.
    """
    drawn, area, ratio, top, left = torch.rand(5, count, generator=generator, device=generator.device)
    least, largest = ERASED_AREA
    area = least + (largest - least) * area
    ratio = torch.exp((2 * ratio - 1) * math.log(ERASED_RATIO))
    height, width = (area * ratio).sqrt(), (area / ratio).sqrt()
    is_erased = drawn < probability
    return torch.stack((top * (1 - height), left * (1 - width), height * is_erased, width * is_erased), 1)


def erase(images: Tensor, rectangles: Tensor) -> Tensor:
    """Sets a rectangle of each image to zero, in all channels.

    Args:
        images: Raw images (N, C, H, W), of any type, finite.
        rectangles: From `draw_rectangles`, (N, 4), on the same device. A pixel belongs to one if its centre
            does.

    Returns:
        Images of the same shape and type.
    """
    top, left, height, width = rectangles[:, :, None].unbind(1)  # (N, 1) each
    rows, columns = ((torch.arange(size, device=images.device) + 0.5) / size for size in images.shape[2:])
    row_stays = (rows < top) | (rows >= top + height)
    column_stays = (columns < left) | (columns >= left + width)
    stays = row_stays[:, :, None] | column_stays[:, None, :]
    return images * stays[:, None]  # half the time of filling
