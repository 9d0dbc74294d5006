"""Which examples each step of a training sees, and how they are moved: drawn for many steps at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from evo_topo.augmentation import draw_moves, draw_rectangles
from evo_topo.recipe import Recipe

WHOLE_END = 0.125
"""Last share of a training that leaves nothing out (Qin et al. 2024): what is learnt last should not err."""


class Batches(NamedTuple):
    """Batches of one step after another.

    Attributes:
        examples: Numbers of training examples, int64 (steps, batch).
        moves: How each is moved, int64 (steps, batch, 3), from `draw_moves`; None for not at all.
        weights: How much each counts, float32 (steps, batch), one in the mean of a pass; None for alike.
        rectangles: What each loses, float32 (steps, batch, 4), from `draw_rectangles`; None for nothing.
    """

    examples: Tensor
    moves: Tensor | None
    weights: Tensor | None
    rectangles: Tensor | None


class Sampler:
    """Draws the batches of a training, in one pass over the training split after another.

    With `Recipe.skip_easy`, a pass leaves out some examples that were easy when they were last seen, and the
    other easy ones count for them, so the gradient is the same in the mean (InfoBatch: Qin et al. 2024).

    Args:
        count: Examples in the training split.
        recipe: How many steps, of what size, whether examples are moved or lose a rectangle, and how many
            easy ones are left out.
        rows: Steps whose batches are drawn at a time: many on a GPU, where each draw is a launch. The number
            decides what is drawn.
        generator: Source of randomness; the batches lie on its device.
        losses: Loss of each example when it was last seen, (count,), NaN before; read whenever a pass begins.
            None, where the recipe leaves nothing out.

    Attributes:
        place: Share of the training that is over, as whoever trains says.
    """

    place = 0.0

    def __init__(
        self, count: int, recipe: Recipe, rows: int, generator: torch.Generator, losses: Tensor | None
    ) -> None:
        self._count, self._recipe, self._generator, self._losses = count, recipe, generator, losses
        if losses is not None:
            rows = min(rows, max(1, count // recipe.batch))  # a pass drawn ahead would go by old losses
        self._rows = rows

    def __iter__(self) -> Iterator[Batches]:
        """Full batches; one may reach into the next pass."""
        recipe, device = self._recipe, self._generator.device
        examples = torch.empty(0, dtype=torch.int64, device=device)
        weights = torch.empty(0, device=device)
        skipped = False
        for first in range(0, recipe.steps, self._rows):
            size = min(self._rows, recipe.steps - first) * recipe.batch
            if skipped and not self._skips:  # what is left of that pass would be part of the end
                examples, weights = examples[:0], weights[:0]
            while len(examples) < size:
                skipped = self._skips
                more, counting = self._pass()
                examples, weights = torch.cat((examples, more)), torch.cat((weights, counting))
            index = examples[:size].view(-1, recipe.batch)
            counted = None if self._losses is None else weights[:size].view_as(index)
            yield Batches(index, self._moves(index), counted, self._rectangles(index))
            examples, weights = examples[size:], weights[size:]

    @property
    def _skips(self) -> bool:
        """Whether a pass that begins now leaves anything out: not the first, and none at the end."""
        return self._losses is not None and 0 < self.place < 1 - WHOLE_END

    def _pass(self) -> tuple[Tensor, Tensor]:
        """Examples in random order, and how much each counts."""
        generator = self._generator
        numbers = torch.randperm(self._count, generator=generator, device=generator.device)
        weights = torch.ones(self._count, device=generator.device)
        if self._losses is None or not self._skips:
            return numbers, weights
        is_easy = (self._losses < self._losses.nanmean())[numbers]  # what was never seen is not
        drawn = torch.rand(self._count, generator=generator, device=generator.device)
        is_kept = ~is_easy | (drawn >= self._recipe.skip_easy)
        weights[is_easy] = 1 / (1 - self._recipe.skip_easy)
        numbers, weights = numbers[is_kept], weights[is_kept]
        return numbers, weights / weights.mean()

    def _moves(self, index: Tensor) -> Tensor | None:
        recipe = self._recipe
        if not recipe.crop_padding and not recipe.flip:
            return None
        moves = draw_moves(index.numel(), recipe.crop_padding, recipe.flip, self._generator)
        return moves.view(*index.shape, 3)

    def _rectangles(self, index: Tensor) -> Tensor | None:
        probability = self._recipe.erase
        if not probability:
            return None
        return draw_rectangles(index.numel(), probability, self._generator).view(*index.shape, 4)
