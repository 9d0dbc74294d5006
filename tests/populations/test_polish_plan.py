import math

import pytest

from populations import schedule as schedule_module
from populations.polish_plan import PolishPlan
from populations.schedule import DRAWN_STEPS, END_SECONDS, Finalists
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


def plan_for(minutes, slots=2, **changes):
    changes |= {"generations": None, "minutes": minutes} if minutes else {}
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


def test_time_is_kept_for_drawing_the_front_out(clock):
    plan, without = plan_for(10.0, outward=0.5), plan_for(10.0)
    assert without.kept_seconds == 0
    step = plan.schedule.polish_seconds(FOUR[0], plan.schedule.drawn_examples(plan.first_examples))
    assert plan.kept_seconds == pytest.approx(DRAWN_STEPS * step)
    together = 4 * plan.schedule.polish_seconds(FOUR[0], plan.first_examples) + plan.kept_seconds
    assert together <= 2 * 595
    assert plan.examples(FOUR) < without.examples(FOUR)
    for order in range(DRAWN_STEPS + 1):
        plan.begin(order, step)
        plan.kept_seconds -= step
        clock.now += step
        plan.finish([order])
    assert plan.pace == pytest.approx(1)
    assert plan.examples(FOUR) == pytest.approx(without.examples(FOUR), rel=0.02)


def test_heirs_take_the_time_of_children(clock):
    plan = plan_for(10.0)
    examples = plan.examples(FOUR, heirs=5)
    polish = 4 * plan.schedule.polish_seconds(FOUR[0], examples)
    assert examples < plan.examples(FOUR)
    assert 0.9 * 2 * 595 < polish + 5 * plan.schedule.child_seconds <= 2 * 595


def test_nobody_begins_who_could_not_end_in_time(clock):
    plan = plan_for(10.0)
    assert plan.has_time(595.0)
    assert not plan.has_time(596.0)
    plan.begin(1, 100.0)
    clock.now += 200.0  # at half the pace
    plan.finish([1])
    assert plan.has_time(395.0 / 2)
    assert not plan.has_time(396.0 / 2)
    assert plan_for(None).has_time(1e9)
