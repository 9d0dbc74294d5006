"""Rank correlation equals a slow reference."""

from math import nan
from random import Random

import numpy as np
import pytest

from analysis.ranks import average_ranks, spearman


def slow_ranks(values: list[float]) -> list[float]:
    """The mean place of all equal values in the sorted list."""
    ordered = sorted(values)
    places = [[i for i, other in enumerate(ordered) if other == value] for value in values]
    return [sum(found) / len(found) for found in places]


@pytest.mark.parametrize("seed", range(20))
def test_ranks_and_correlation_equal_the_reference(seed: int) -> None:
    rng = Random(seed)
    x = [rng.randrange(4) / 2 if seed % 2 else rng.random() for _ in range(3 + seed)]
    y = [value + rng.gauss(0, 0.5) for value in x]
    assert average_ranks(np.array(x)).tolist() == slow_ranks(x)
    if len(set(x)) > 1:
        assert spearman(x, y) == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1])


def test_correlation_knows_its_ends() -> None:
    assert spearman([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, -5]) == pytest.approx(-1)
    assert spearman([1, None, 2, nan, 3], [1, 9, 2, 9, 3]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 2], [1, 2]), ([1, 2, 3], [5, 5, 5]), ([0, 0, 0], [1, 2, 3]), ([1, 2, nan], [1, 2, 3])],
)
def test_correlation_of_too_little_is_none(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None
