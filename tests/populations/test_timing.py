import pytest

from populations.individual import Individual, Outcome
from populations.timing import last_phases_seconds
from tests.small import small_founder


def individual(seconds: float) -> Individual:
    outcome = Outcome("ok", examples=100, seconds=seconds)
    return Individual(0, None, 0, None, small_founder(), None, None, 0, 0, 0.0, outcome)


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        (1, 10 + 20 + 60),  # one after the other
        (2, 60),  # all others fit beside the reference
        (8, 60),  # no more slots help the longest
    ],
)
def test_the_longest_bounds_the_last_phases(slots, expected):
    population = [individual(1.0), individual(2.0)]
    seconds = last_phases_seconds(population, individual(3.0), lambda _: 1000, 2000, slots)
    assert seconds == pytest.approx(expected)
