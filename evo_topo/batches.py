"""Which examples each step of a training sees, and how they are moved: drawn for many steps at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from evo_topo.augmentation import draw_moves
from evo_topo.recipe import Recipe


class Batches(NamedTuple):
    """Batches of one step after another.

    Attributes:
        examples: Numbers of training examples, int64 (steps, batch).
        moves: How each is moved, int64 (steps, batch, 3), from `draw_moves`; None for not at all.
    """

    examples: Tensor
    moves: Tensor | None


def draw_batches(count: int, recipe: Recipe, rows: int, generator: torch.Generator) -> Iterator[Batches]:
    """The batches of a whole training.

    Args:
        count: Examples in the training split.
        recipe: How many steps, of what size, and whether examples are moved.
        rows: Steps whose batches are drawn at a time: many on a GPU, where each draw is a launch. The number
            decides what is drawn.
        generator: Source of randomness; the batches lie on its device.
    """
    for index in index_batches(count, recipe.batch, recipe.steps, rows, generator):
        moves = None
        if recipe.crop_padding or recipe.flip:
            moves = draw_moves(index.numel(), recipe.crop_padding, recipe.flip, generator)
            moves = moves.view(*index.shape, 3)
        yield Batches(index, moves)


def index_batches(
    count: int, batch_size: int, steps: int, rows: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Full batches of example indices from one permutation after another, int64 (rows, batch_size).

    Args:
        count: Examples in the training split.
        batch_size: Indices in a batch; a batch may reach into the next permutation.
        steps: Number of batches in all.
        rows: Batches at a time; the last are fewer.
        generator: Source of randomness; the batches lie on its device.
    """
    pool = torch.empty(0, dtype=torch.int64, device=generator.device)
    for first in range(0, steps, rows):
        size = min(rows, steps - first) * batch_size
        while len(pool) < size:
            epoch = torch.randperm(count, generator=generator, device=generator.device)
            pool = torch.cat((pool, epoch))
        yield pool[:size].view(-1, batch_size)
        pool = pool[size:]
