"""Batches walk through the training split, pass by pass, and may leave out what is easy."""

import pytest
import torch

from evo_topo.batches import WHOLE_END, Batches, Sampler
from evo_topo.recipe import Recipe

COUNT, HARD = 400, 100


def drawn(count: int, recipe: Recipe, rows: int = 1, losses: torch.Tensor | None = None) -> list[Batches]:
    sampler = Sampler(count, recipe, rows, torch.Generator().manual_seed(0), losses)
    sampler.place = 0.5
    return list(sampler)


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize(("count", "size"), [(10, 4), (10, 10), (3, 8)])
def test_batches_walk_through_permutations(count: int, size: int, rows: int) -> None:
    steps = 3 * count
    recipe = Recipe(examples=steps * size, batch_size=size, learning_rate=0.1)
    batches = drawn(count, recipe, rows)
    assert all(
        b.examples.shape == (min(rows, steps - rows * i), size) and b.weights is None
        for i, b in enumerate(batches)
    )
    stream = torch.cat([b.examples for b in batches]).flatten()
    assert len(stream) == steps * size
    epochs = stream[: len(stream) // count * count].view(-1, count)
    assert torch.equal(epochs.sort(1).values, torch.arange(count).expand_as(epochs))
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (2, False), (2, True)])
def test_every_example_of_a_batch_has_a_move_of_its_own(padding: int, flip: bool) -> None:
    recipe = Recipe(examples=64 * 7, learning_rate=0.1, crop_padding=padding, flip=flip)
    batches = drawn(100, recipe, 3)
    assert [len(b.examples) for b in batches] == [3, 3, 1]
    if not padding and not flip:
        assert all(b.moves is None for b in batches)
        return
    moves = torch.cat([b.moves for b in batches if b.moves is not None])
    assert moves.shape == (7, 64, 3)
    seen = [set(moves[..., i].flatten().tolist()) for i in range(3)]
    assert seen == [set(range(2 * padding + 1))] * 2 + [{0, 1} if flip else {0}]


@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_every_example_of_a_batch_may_lose_a_rectangle_of_its_own(probability: float) -> None:
    recipe = Recipe(examples=64 * 7, learning_rate=0.1, erase=probability)
    batches = drawn(100, recipe, 3)
    if not probability:
        assert all(b.rectangles is None for b in batches)
        return
    rectangles = torch.cat([b.rectangles for b in batches if b.rectangles is not None])
    assert rectangles.shape == (7, 64, 4)
    erased = rectangles[rectangles[..., 2] > 0]
    assert len(erased) / (7 * 64) == pytest.approx(probability, abs=0.06)
    assert len(erased.unique(dim=0)) == len(erased)


@pytest.mark.parametrize("skip", [0.25, 0.5, 0.9])
def test_passes_leave_out_easy_examples_and_the_others_of_them_count_for_those(skip: float) -> None:
    losses = torch.full((COUNT,), 0.1)
    losses[:HARD] = 2.0
    recipe = Recipe(examples=100 * COUNT, batch_size=10, learning_rate=0.1, skip_easy=skip)
    batches = drawn(COUNT, recipe, losses=losses)
    examples, weights = (torch.cat([b[part].flatten() for b in batches]) for part in (0, 2))
    counts = torch.bincount(examples, minlength=COUNT).double()
    hard, easy = counts[:HARD], counts[HARD:]
    assert hard.max() - hard.min() <= 1  # once in every pass; the last is cut off
    assert easy.mean() / hard.mean() == pytest.approx(1 - skip, rel=0.03)
    heavy, light = weights[examples >= HARD], weights[examples < HARD]
    assert heavy.mean() / light.mean() == pytest.approx(1 / (1 - skip), rel=0.03)
    assert weights.mean() == pytest.approx(1, rel=1e-3)
    # nobody is neglected: what all examples count for together is the same for hard and easy ones
    total = torch.zeros(COUNT).index_add_(0, examples, weights)
    assert total[HARD:].mean() / total[:HARD].mean() == pytest.approx(1, rel=0.03)


def test_what_was_never_seen_is_not_left_out() -> None:
    recipe = Recipe(examples=20 * COUNT, batch_size=10, learning_rate=0.1, skip_easy=0.9)
    losses = torch.full((COUNT,), torch.nan)
    batches = drawn(COUNT, recipe, losses=losses)
    whole = drawn(COUNT, Recipe(examples=20 * COUNT, batch_size=10, learning_rate=0.1))
    assert all(
        torch.equal(a.examples[:, :1], b.examples[:, :1])
        for a, b in zip(batches[:40], whole[:40], strict=True)
    )
    assert all(b.weights is not None and torch.equal(b.weights, torch.ones_like(b.weights)) for b in batches)
    losses[:HARD] = torch.arange(HARD)  # of these, half are easy
    counts = torch.bincount(torch.cat([b.examples.flatten() for b in drawn(COUNT, recipe, 1, losses)]))
    assert counts[HARD // 2 :].min() > 2 * counts[: HARD // 2].max()


def test_losses_are_read_when_a_pass_begins_and_the_end_leaves_nothing_out() -> None:
    losses = torch.full((COUNT,), torch.nan)
    recipe = Recipe(examples=40 * COUNT, batch_size=10, learning_rate=0.1, skip_easy=0.5)
    sampler = Sampler(COUNT, recipe, 10_000, torch.Generator().manual_seed(0), losses)
    whole = []  # whether all of it count alike, by the place in the training
    for batches in sampler:
        assert batches.weights is not None
        assert len(batches.examples) <= COUNT // 10  # or a pass would be drawn long before it begins
        examples = batches.examples.flatten()
        losses[examples] = torch.where(examples < HARD, 2.0, 0.1)
        whole.append((sampler.place, bool((batches.weights == 1).all())))
        sampler.place += len(examples) / recipe.examples
    assert whole[0][1]
    assert not any(is_whole for place, is_whole in whole[1:] if place < 1 - WHOLE_END)
    assert all(is_whole for place, is_whole in whole if place >= 1 - WHOLE_END)
    assert whole[-3][0] > 1 - WHOLE_END
