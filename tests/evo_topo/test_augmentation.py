import pytest
import torch
from torch import nn

from evo_topo.augmentation import draw_moves, shift_and_flip
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
