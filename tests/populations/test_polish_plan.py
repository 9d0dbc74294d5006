import math

import pytest

from populations import schedule as schedule_module
from populations.polish_plan import PolishPlan
from populations.schedule import END_SECONDS, Finalists
from tests.populations.test_schedule import SMALL, individual, schedule


class Clock:
    """Time that passes when told."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(schedule_module, "time", clock)
    return clock


FOUR = [individual(number, SMALL) for number in range(1, 5)]


def plan_for(minutes, slots=2):
    changes = {"generations": None, "minutes": minutes} if minutes else {}
    plan, finalists = schedule(slots=slots, compare=False, example_exponent=0.0, **changes)
    return PolishPlan(plan, Finalists(finalists.longest, FOUR))


def test_without_a_limit_all_train_as_long_as_asked(clock):
    plan = plan_for(None)
    asked = plan.schedule.config.polish_examples
    plan.begin(1, 10.0)
    clock.now += 1000.0
    plan.finish([1])
    assert plan.first_examples == plan.examples(FOUR) == asked


@pytest.mark.parametrize("pace", [0.5, 1.0, 2.0])
def test_who_begins_later_trains_for_as_long_as_time_and_pace_allow(clock, pace):
    plan = plan_for(10.0)
    foreseen = plan.schedule.polish_seconds(FOUR[0], plan.first_examples)
    assert 0.97 * 595 < 2 * foreseen <= 595  # two rounds of two
    for order in (1, 2):
        plan.begin(order, foreseen)
    clock.now += pace * foreseen
    plan.finish([1, 2])
    assert plan.pace == pytest.approx(pace)
    left = 600 - END_SECONDS - pace * foreseen
    examples = plan.examples(FOUR[2:])
    took = pace * plan.schedule.polish_seconds(FOUR[0], examples)
    if pace < 2:
        assert 0.97 * left < took <= left
        assert pace == 1 or (examples > plan.first_examples) == (pace < 1)
    else:  # next to no time is left
        assert examples < plan.first_examples / 100


def test_who_waits_shares_the_time_with_those_under_way(clock):
    plan = plan_for(10.0)
    plan.begin(1, 100.0)
    plan.begin(2, 400.0)
    clock.now += 110.0
    plan.finish([1])
    examples = plan.examples(FOUR[2:])  # both behind the first, for the second takes 440 seconds
    took = plan.pace * plan.schedule.polish_seconds(FOUR[2], examples)
    assert 0.97 * (485 / 2) < took <= 485 / 2


def test_somebody_who_overruns_takes_no_time_from_others(clock):
    plan = plan_for(10.0)
    plan.begin(1, 100.0)
    plan.begin(2, 700.0)  # longer than there is time
    clock.now += 100.0
    plan.finish([1])
    examples = plan.examples(FOUR[3:])
    assert 0.97 * 495 < plan.schedule.polish_seconds(FOUR[3], examples) <= 495


def test_nobody_trains_for_longer_than_foreseen(clock):
    plan = plan_for(10.0)
    assert plan.limit(100.0) == 100
    plan.begin(1, 100.0)
    clock.now += 80.0
    plan.finish([1])
    assert plan.limit(100.0) == pytest.approx(80)
    clock.now += 500.0
    assert plan.limit(100.0) == pytest.approx(595 - 580)
    assert plan_for(None).limit(100.0) == math.inf
