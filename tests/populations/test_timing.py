import pytest

from evo_topo.recipe import LEAST_STEPS, Recipe
from populations.individual import Outcome
from populations.timing import development_seconds, makespan, most_that_fit, relative_seconds


@pytest.mark.parametrize(("slots", "expected"), [(1, 9.0), (2, 6.0), (8, 6.0)])
def test_the_longest_bounds_them_all(slots, expected):
    assert makespan([1.0, 6.0, 2.0], slots) == expected


def test_slots_take_the_longest_first_and_the_last_one_counts():
    assert makespan([3.0, 5.0, 3.0, 4.0, 3.0], 2) == 4.0 + 3.0 + 3.0  # beside 5 and 3: not half of the sum


def test_tasks_wait_for_slots_that_are_taken():
    assert makespan([2.0, 3.0], 2, busy=[5.0]) == 5.0
    assert makespan([2.0], 2, busy=[5.0, 4.0]) == 6.0


def test_what_is_under_way_already_is_no_task():
    assert makespan([2.0], 2, busy=[5.0]) == 2.0
    assert makespan([], 2, busy=[1.0]) == 0.0


def test_only_training_takes_longer_with_more_examples():
    outcome = Outcome("ok", examples=100, seconds=3.5, training_seconds=3.0)
    recipe = Recipe(examples=100, learning_rate=0.1)
    assert development_seconds(outcome, recipe, 1000) == pytest.approx(0.5 + 30.0)


def test_doubled_batches_take_less_time_for_an_example():
    long = LEAST_STEPS * 128
    recipe = Recipe(examples=100, learning_rate=0.1, batch_doublings=1)
    short = Outcome("ok", examples=100, seconds=3.5, training_seconds=3.0)
    less = relative_seconds(recipe, long)
    assert less < relative_seconds(recipe, 100) == 1
    assert development_seconds(short, recipe, long) == pytest.approx(0.5 + 3 * long / 100 * less)
    doubled = Outcome("ok", examples=long, seconds=3.5, training_seconds=3.0)
    assert development_seconds(doubled, recipe, 2 * long) == pytest.approx(0.5 + 6)
    assert development_seconds(doubled, recipe, 100) == pytest.approx(0.5 + 3 * 100 / long / less)


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
