from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.calibration import FEWEST, Calibration, Isotonic

numbers = st.floats(-10, 10).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


@given(pairs)
def test_blocks_are_those_of_the_min_max_formula(found):
    """The isotonic fit at i is max over j <= i of min over k >= i of the mean of y[j..k]."""
    tied = {x: [y for other, y in found if other == x] for x in sorted({x for x, _ in found})}
    y = list(tied.values())  # one value for each prediction

    def mean(j, k):
        together = [value for some in y[j : k + 1] for value in some]
        return sum(together) / len(together)

    expected = [max(min(mean(j, k) for k in range(i, len(y))) for j in range(i + 1)) for i in range(len(y))]
    levels = [a for a, b in zip(expected, [*expected[1:], None], strict=True) if b is None or b - a > 1e-9]
    fit = Isotonic.fit(found)
    assert list(fit.y) == pytest.approx(levels, abs=1e-9)


@given(pairs, st.lists(st.floats(-20, 20), min_size=2))
def test_it_rises_and_passes_its_knots(found, at):
    fit = Isotonic.fit(found)
    values = [fit(x) for x in sorted(at)]
    assert all(b >= a - 1e-9 for a, b in pairwise(values))
    assert [fit(x) for x in fit.x] == pytest.approx(list(fit.y))


def test_rising_pairs_are_met_and_beyond_them_differences_count():
    fit = Isotonic.fit([(2, 1.0), (1, 0.5), (4, 3.0)])
    assert [fit(x) for x in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]
    assert (fit(-9), fit(6)) == (0.5, 5.0)


def test_kinds_with_few_pairs_take_the_correction_of_all():
    many = [("prune_units", float(n), 0.1 * n) for n in range(FEWEST)]
    calibration = Calibration.fit([*many, ("fuse", 3.0, 0.3)])
    assert set(calibration.kinds) == {"prune_units"}
    assert calibration.recovered("prune_units", 2.0) == pytest.approx(0.2)
    assert calibration.recovered("fuse", 2.0) == calibration.every(2.0)
    assert Calibration.fit(many[:-1]).recovered("prune_units", 2.0) == 2.0
    assert Calibration.fit(reversed(many)) == Calibration.fit(many)


def test_of_equal_predictions_the_mean_counts_and_not_the_luckiest():
    fit = Isotonic.fit([(0.0, -1.0), (0.0, 3.0), (2.0, 4.0)])
    assert (fit(0.0), fit(1.0), fit(2.0)) == (1.0, 2.5, 4.0)
