"""Rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.common import as_array


def spearman(x: Sequence[float | None], y: Sequence[float | None]) -> float | None:
    """Spearman's rank correlation: Pearson's, of the ranks.

    Args:
        x: Numbers; None and NaN stand for a missing one, whose pair is left out.
        y: As many numbers.

    Returns:
        From -1 to 1; None for fewer than 3 pairs, or where either side is constant.
    """
    a, b = as_array(x), as_array(y)
    complete = ~(np.isnan(a) | np.isnan(b))
    if complete.sum() < 3:
        return None
    a, b = average_ranks(a[complete]), average_ranks(b[complete])
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else None


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[group]
    return ranks
