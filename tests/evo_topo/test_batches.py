"""Batches walk through the training split, permutation by permutation."""

import pytest
import torch

from evo_topo.batches import draw_batches, index_batches
from evo_topo.recipe import Recipe


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize(("count", "size"), [(10, 4), (10, 10), (3, 8)])
def test_batches_walk_through_permutations(count: int, size: int, rows: int) -> None:
    steps = 3 * count
    batches = list(index_batches(count, size, steps, rows, torch.Generator().manual_seed(0)))
    assert all(b.shape == (min(rows, steps - rows * i), size) for i, b in enumerate(batches))
    stream = torch.cat(batches).flatten()
    assert len(stream) == steps * size
    epochs = stream[: len(stream) // count * count].view(-1, count)
    assert torch.equal(epochs.sort(1).values, torch.arange(count).expand_as(epochs))
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (2, False), (2, True)])
def test_every_example_of_a_batch_has_a_move_of_its_own(padding: int, flip: bool) -> None:
    recipe = Recipe(examples=64 * 7, learning_rate=0.1, crop_padding=padding, flip=flip)
    drawn = list(draw_batches(100, recipe, 3, torch.Generator().manual_seed(0)))
    assert [len(batches.examples) for batches in drawn] == [3, 3, 1]
    if not padding and not flip:
        assert all(batches.moves is None for batches in drawn)
        return
    moves = torch.cat([batches.moves for batches in drawn if batches.moves is not None])
    assert moves.shape == (7, 64, 3)
    seen = [set(moves[..., i].flatten().tolist()) for i in range(3)]
    assert seen == [set(range(2 * padding + 1))] * 2 + [{0, 1} if flip else {0}]
