import pytest

from populations.individual import Individual, Outcome
from populations.timing import CROWDED, last_phases_seconds, most_that_fit
from tests.small import small_founder


def individual(seconds: float) -> Individual:
    outcome = Outcome("ok", examples=100, seconds=seconds + 0.5, training_seconds=seconds)
    return Individual(0, None, 0, None, small_founder(), None, None, 0, 0, 0.0, outcome)


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        (1, 10.5 + 20.5 + 60.5),  # one after the other
        (2, CROWDED * 60.5),  # all others fit beside the reference
        (8, CROWDED * 60.5),  # no more slots help the longest
    ],
)
def test_the_longest_bounds_the_last_phases(slots, expected):
    population = [individual(1.0), individual(2.0)]
    seconds = last_phases_seconds(population, individual(3.0), lambda _: 1000, 2000, slots)
    assert seconds == pytest.approx(expected)


def test_slots_take_the_longest_first_and_the_last_one_counts():
    population = [individual(seconds) for seconds in (5.0, 4.0, 3.0, 3.0, 3.0)]
    seconds = last_phases_seconds(population, individual(3.0), lambda _: 100, 0, 2)
    assert seconds == pytest.approx(4.5 + 3.5 + 3.5)  # beside 5 and 3: not half of the sum


@pytest.mark.parametrize(("limit", "at_least"), [(100.0, 1), (100.0, 700), (3.0, 50), (1e6, 10)])
def test_as_many_examples_as_fit_are_found(limit, at_least):
    def seconds(examples):
        return 5.0 + max(examples, 200) / 10

    found = most_that_fit(seconds, limit, at_least)
    if seconds(at_least) > limit:
        assert found == at_least
    else:
        assert found >= at_least
        assert 0.97 * limit < seconds(found) <= limit
