"""A hurdle is where the prediction interval of a line, written out slowly, leaves a bar behind."""

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from populations.founders import conv_net
from populations.hurdles import FEWEST, LUCK, Outlook, _student, hurdle_for, lowest_losses
from populations.individual import Individual, Outcome

SEEDS = st.integers(0, 2**32 - 1)


def siblings(seed: int, count: int = 30, noise: float = 0.01) -> list[tuple[float, float]]:
    """Halfway and validation losses about a line of slope one half."""
    rng = random.Random(seed)
    halfway = [rng.uniform(0.3, 0.5) for _ in range(count)]
    return [(x, 0.1 + 0.5 * x + rng.gauss(0, noise)) for x in halfway]


def lucky_end(pairs: list[tuple[float, float]], halfway: float) -> float:
    """The lower bound of the prediction interval, with matrices (any textbook of linear regression)."""
    x, y = np.array(pairs).T
    design = np.stack([np.ones_like(x), x], axis=1)
    weights = np.linalg.solve(design.T @ design, design.T @ y)
    freedom = len(pairs) - 2
    variance = np.sum((y - design @ weights) ** 2) / freedom
    row = np.array([1, halfway])
    width = math.sqrt(variance * (1 + row @ np.linalg.inv(design.T @ design) @ row))
    return float(row @ weights - _student(LUCK, freedom) * width)


@given(SEEDS, st.floats(0.1, 0.6), st.sampled_from([FEWEST, 20, 200]))
def test_the_hurdle_is_where_a_lucky_end_meets_the_bar(seed: int, bar: float, count: int) -> None:
    pairs = siblings(seed, count)
    outlook = Outlook.fit(pairs)
    hurdle = outlook.hurdle(bar)
    assert lucky_end(pairs, hurdle) == pytest.approx(bar, abs=1e-8)
    assert lucky_end(pairs, hurdle - 0.01) < bar < lucky_end(pairs, hurdle + 0.01)
    assert hurdle < outlook.hurdle(bar + 0.01)
    assert outlook.expected(hurdle) > bar


@given(SEEDS)
def test_the_order_of_siblings_does_not_matter(seed: int) -> None:
    pairs = siblings(seed)
    assert Outlook.fit(random.Random(seed).sample(pairs, len(pairs))) == Outlook.fit(pairs)


def test_one_in_forty_is_stopped_that_would_have_met_the_bar() -> None:
    rng, better = random.Random(0), 0
    for seed in range(2000):
        halfway = rng.uniform(0.3, 0.6)
        end = 0.1 + 0.5 * halfway + rng.gauss(0, 0.01)
        better += halfway > Outlook.fit(siblings(seed, 12)).hurdle(end)  # stopped, were this end the bar
    assert better / 2000 == pytest.approx(1 / 40, abs=0.0105)  # three standard errors


@pytest.mark.parametrize("freedom", [FEWEST - 2, 10, 50, 998])
def test_quantiles_are_those_of_student(freedom: int) -> None:
    assert _student(LUCK, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.006)


def test_too_little_sets_no_hurdle() -> None:
    pairs = siblings(0)
    assert Outlook.fit(pairs[: FEWEST - 1]) is None
    assert Outlook.fit([(0.4, y) for _, y in pairs]) is None  # all stood alike
    assert Outlook.fit([(x, -y) for x, y in pairs]).hurdle(-0.3) is None  # losses that fall
    assert Outlook.fit(siblings(0, FEWEST, noise=10.0)).hurdle(0.3) is None  # a line that may be chance
    assert hurdle_for([10**9], lowest_losses([an_individual(4, 0.3)]), None) is None


def an_individual(width: int, loss: float | None) -> Individual:
    outcome = Outcome("failed") if loss is None else Outcome("ok", loss=loss)
    genome = conv_net((1, 8, 8), 10, (width,), (1,))
    return Individual(0, None, 0, None, genome, None, None, 0, 0, 0.0, outcome)


def test_the_bar_is_the_best_of_those_as_cheap() -> None:
    outlook = Outlook.fit(siblings(0))
    small, medium, large = an_individual(4, 0.35), an_individual(8, 0.37), an_individual(16, 0.25)
    lowest = lowest_losses([large, small, medium, an_individual(2, None)])
    for child, bar in ((small, 0.35), (medium, 0.35), (large, 0.25)):
        assert hurdle_for([child.flops], lowest, outlook) == outlook.hurdle(bar)
    assert hurdle_for([large.flops, small.flops], lowest, outlook) == outlook.hurdle(0.35)
    assert hurdle_for([small.flops - 1], lowest, outlook) is None
    assert hurdle_for([large.flops, small.flops - 1], lowest, outlook) is None
    same = msgspec.structs.replace(small, outcome=Outcome("ok", loss=0.2))
    assert hurdle_for([small.flops], lowest_losses([small, same]), outlook) == outlook.hurdle(0.2)
