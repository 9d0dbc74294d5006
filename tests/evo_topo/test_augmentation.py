import pytest
import torch
from torch import nn

from evo_topo.augmentation import (
    ERASED_AREA,
    ERASED_RATIO,
    draw_moves,
    draw_rectangles,
    erase,
    shift_and_flip,
)
from evo_topo.datasets import load_dataset


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_every_image_is_a_shifted_or_mirrored_original(padding, flip) -> None:
    images = load_dataset("digits").train.inputs[:500].repeat(1, 2, 1, 1)
    images[:, 1] += 100  # a second channel that moves along
    moves = draw_moves(len(images), padding, flip, torch.Generator().manual_seed(0))
    moved = shift_and_flip(images, moves, padding)
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    seen = set()
    for image, result in zip(images, moved, strict=True):
        padded = nn.functional.pad(image, (padding,) * 4)
        variants = {}
        for y in range(2 * padding + 1):
            for x in range(2 * padding + 1):
                window = padded[:, y : y + 8, x : x + 8]
                variants[y, x, False] = window
                if flip:
                    variants[y, x, True] = window.flip(2)
        matches = [key for key, variant in variants.items() if torch.equal(variant, result)]
        assert matches
        seen.update(matches)
    assert len(seen) == (2 * padding + 1) ** 2 * (1 + flip)  # each variant occurs


def test_rectangles_lie_within_the_image_and_have_the_drawn_areas() -> None:
    rectangles = draw_rectangles(20_000, 0.25, torch.Generator().manual_seed(0)).double()
    assert torch.equal(rectangles[:, 2] > 0, rectangles[:, 3] > 0)
    erased = rectangles[rectangles[:, 2] > 0]
    assert len(erased) / 20_000 == pytest.approx(0.25, abs=0.01)
    top, left, height, width = erased.unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    area, ratio = height * width, height / width
    for value, (low, high) in ((area, ERASED_AREA), (ratio, (1 / ERASED_RATIO, ERASED_RATIO))):
        assert low * (1 - 1e-5) <= value.min() < low * 1.01
        assert high * 0.99 < value.max() <= high * (1 + 1e-5)
    assert area.mean() == pytest.approx(sum(ERASED_AREA) / 2, rel=0.01)
    assert ratio.median() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("shape", [(8, 8), (7, 12)])
def test_pixels_whose_centre_a_rectangle_holds_are_zero_and_no_others(shape: tuple[int, int]) -> None:
    height, width = shape
    images = torch.arange(1, 201, dtype=torch.uint8)[:, None, None, None].repeat(1, 2, height, width)
    rectangles = draw_rectangles(200, 0.5, torch.Generator().manual_seed(0))
    found = erase(images, rectangles)
    assert (found.shape, found.dtype) == (images.shape, images.dtype)
    for image, rectangle, result in zip(images, rectangles.tolist(), found, strict=True):
        top, left, tall, wide = rectangle
        expected = image.clone()
        for y in range(height):
            for x in range(width):
                down, right = (y + 0.5) / height, (x + 0.5) / width
                if top <= down < top + tall and left <= right < left + wide:
                    expected[:, y, x] = 0
        assert torch.equal(result, expected)
    assert images.min() == 1  # those given are as before
