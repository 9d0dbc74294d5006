"""What edits come to cost after training, learned from what they were predicted to cost. No torch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from msgspec import Struct

FEWEST = 8
"""Pairs from which a correction is fit."""


class Isotonic(Struct, frozen=True, forbid_unknown_fields=True):
    """A rising function, linear between its knots.

    Attributes:
        x: Predicted loss changes, rising.
        y: Recovered loss changes, rising.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    @staticmethod
    def fit(pairs: Iterable[tuple[float, float]]) -> Isotonic:
        """Least squares among rising functions: pool adjacent violators (Ayer et al. 1955).

        Args:
            pairs: Predicted and recovered loss changes, one or more.
        """
        blocks: list[list[float]] = []  # sum of x, sum of y, count
        for x, tied in groupby(sorted(pairs), key=itemgetter(0)):  # whose value is one
            ys = [y for _, y in tied]
            blocks.append([x * len(ys), sum(ys), len(ys)])
            while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
                last = blocks.pop()
                blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
        return Isotonic(tuple([x / n for x, _, n in blocks]), tuple([y / n for _, y, n in blocks]))

    def __call__(self, x: float) -> float:
        """Its value; constant before the first knot, and beyond the last one rising as much as x does."""
        if x <= self.x[0]:
            return self.y[0]
        if x >= self.x[-1]:
            return self.y[-1] + x - self.x[-1]
        at = bisect_right(self.x, x)
        share = (x - self.x[at - 1]) / (self.x[at] - self.x[at - 1])
        return self.y[at - 1] + share * (self.y[at] - self.y[at - 1])


class Calibration(Struct, frozen=True, forbid_unknown_fields=True):
    """Corrections of predicted loss changes by kind of edit.

    Attributes:
        kinds: By kind, where there are pairs enough.
        every: For the other kinds, from all pairs together; None where all is too little.
    """

    kinds: dict[str, Isotonic] = {}
    every: Isotonic | None = None

    @staticmethod
    def fit(pairs: Iterable[tuple[str, float, float]]) -> Calibration:
        """Learns from kinds of edits, their predicted and their recovered loss changes."""
        by_kind: dict[str, list[tuple[float, float]]] = {}
        for kind, predicted, recovered in pairs:
            by_kind.setdefault(kind, []).append((predicted, recovered))
        together = [pair for some in by_kind.values() for pair in some]
        kinds = {kind: Isotonic.fit(some) for kind, some in by_kind.items() if len(some) >= FEWEST}
        return Calibration(kinds, Isotonic.fit(together) if len(together) >= FEWEST else None)

    def recovered(self, kind: str, predicted: float) -> float:
        """The loss change after training that a predicted one lets expect; itself where nothing is known."""
        correction = self.kinds.get(kind, self.every)
        return predicted if correction is None else correction(predicted)
