"""Hurdles: the halfway loss above which a child is not worth training on. No torch.

Siblings train alike, so how a child will end can be told from how it stands at half-time (after the
extrapolation of learning curves: Domhan, Springenberg & Hutter 2015). It is stopped where even a lucky end
would be worse than somebody as cheap already is.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import NormalDist, fmean
from typing import NamedTuple

from populations.individual import Individual

FEWEST = 8
"""Children that it takes to say how others will end."""
LUCK = NormalDist().inv_cdf(0.975)
"""How lucky an end may be: one child in forty ends better. In standard deviations, of many children."""


class Outlook(NamedTuple):
    """The line that leads from halfway losses to validation losses, by least squares.

    A slope of one would be too steep: who stands badly at half-time, after a large step, gains more than
    others do in what is left.

    Attributes:
        children: How many it was fit to.
        halfway: Their mean halfway loss.
        loss: Their mean validation loss.
        slope: Of the line through both means.
        spread: Sum of the squared distances of their halfway losses from the mean.
        deviation: Standard deviation of the validation losses from the line.
    """

    children: int
    halfway: float
    loss: float
    slope: float
    spread: float
    deviation: float

    @classmethod
    def fit(cls, pairs: Iterable[tuple[float, float]]) -> Outlook | None:
        """The line of earlier children; None from too few, or where all stood alike.

        Args:
            pairs: Halfway loss and validation loss of each, in nats.
        """
        pairs = sorted(pairs)  # children end in any order, and the last bits of a sum depend on it
        if len(pairs) < FEWEST:
            return None
        halfway, loss = (fmean(column) for column in zip(*pairs, strict=True))
        spread = sum((x - halfway) ** 2 for x, _ in pairs)
        if spread == 0:
            return None
        slope = sum((x - halfway) * (y - loss) for x, y in pairs) / spread
        squares = sum((y - loss - slope * (x - halfway)) ** 2 for x, y in pairs)
        return cls(len(pairs), halfway, loss, slope, spread, math.sqrt(squares / (len(pairs) - 2)))

    def expected(self, halfway_loss: float) -> float:
        """The validation loss that a child is expected to end with."""
        return self.loss + self.slope * (halfway_loss - self.halfway)

    def hurdle(self, bar: float) -> float | None:
        """The halfway loss from which even a lucky child ends above a bar; None where that cannot be told.

        At halfway loss h, with u = h - mean, a lucky child ends at the lower bound of the prediction
        interval, mean loss + slope u - t deviation sqrt(1 + 1/n + u^2 / spread); set equal to the bar, this
        is a quadratic equation in u (Fieller 1954), and the larger root the hurdle.

        Args:
            bar: A validation loss, in nats.
        """
        margin = _student(LUCK, self.children - 2) * self.deviation
        leading = self.slope**2 - margin**2 / self.spread
        if self.slope <= 0 or leading <= 0:  # then it may be chance that losses rise with halfway losses
            return None
        rise = bar - self.loss
        root = math.sqrt(leading * (1 + 1 / self.children) + rise**2 / self.spread)
        return self.halfway + (self.slope * rise + margin * root) / leading


def lowest_losses(population: Iterable[Individual]) -> list[tuple[int, float]]:
    """What a child competes with: FLOPs, rising, and the lowest loss of anybody as cheap.

    Args:
        population: Developed individuals.
    """
    known = sorted((i.flops, i.outcome.loss) for i in population if i.outcome.loss is not None)
    lowest = accumulate((loss for _, loss in known), min)
    return list(zip((flops for flops, _ in known), lowest, strict=True))


def hurdle_for(
    flops: Iterable[int], lowest: Sequence[tuple[int, float]], outlook: Outlook | None
) -> float | None:
    """The hurdle of a child; None where it competes with nobody as cheap, or too little is known.

    Args:
        flops: FLOPs for one example of each network that it may become: the most lenient hurdle counts.
        lowest: Of those it competes with, from `lowest_losses`.
        outlook: What earlier children taught.
    """
    if outlook is None:
        return None
    as_cheap = [bisect_right(lowest, (most, math.inf)) for most in flops]
    if not all(as_cheap):
        return None
    return outlook.hurdle(max(lowest[count - 1][1] for count in as_cheap))


def _student(normal: float, freedom: int) -> float:
    """Quantile of Student's t at the same probability as a normal one (Abramowitz & Stegun 26.7.5)."""
    z, z3, z5 = normal, normal**3, normal**5
    return z + (z3 + z) / (4 * freedom) + (5 * z5 + 16 * z3 + 3 * z) / (96 * freedom**2)
