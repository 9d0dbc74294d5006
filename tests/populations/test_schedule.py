import dataclasses
import math

import pytest
from msgspec.structs import replace

from populations.founders import conv_net
from populations.individual import Individual, Outcome
from populations.memory import Memory
from populations.schedule import CROWDED, END_SECONDS, Finalists, Schedule
from tests.small import small_config, small_founder

SMALL = conv_net((1, 8, 8), 10, (2, 2), (1, 2))


def individual(number, genome, seconds=10.0, examples=1000, inherited=0):
    outcome = Outcome("ok", examples=examples, seconds=seconds + 1, training_seconds=seconds)
    parent = None if number == 0 else 0
    return Individual(number, parent, min(number, 1), None, genome, None, None, inherited, 0, 0.0, outcome)


def schedule(spent=0.0, slots=2, **changes):
    founder, child = individual(0, small_founder()), individual(1, SMALL, 5.0, 500, inherited=1000)
    memory = Memory([founder, child])
    config = dataclasses.replace(small_config(), **{"distill": 0.0, **changes})
    return Schedule(config, founder.genome, memory, slots, spent), Finalists(child.total_examples, [child])


def timed(minutes, spent, **changes):
    return schedule(spent, generations=None, minutes=minutes, **changes)


def test_without_a_limit_there_is_always_time():
    plan, finalists = schedule(spent=1e6)
    assert plan.has_time(finalists)
    assert plan.polish_examples(finalists) == plan.config.polish_examples


def test_children_are_bred_until_the_last_phases_need_the_rest():
    plan, finalists = timed(10, 0.0, compare=False, polish_share=0.5)
    latest = 600 - 300 - END_SECONDS - 2 * plan.child_seconds
    assert plan.child_seconds == 6
    assert timed(10, latest - 1, compare=False, polish_share=0.5)[0].has_time(finalists)
    assert not timed(10, latest + 1, compare=False, polish_share=0.5)[0].has_time(finalists)


def test_before_there_is_a_child_the_founder_tells_what_one_takes():
    founder = individual(0, small_founder(), seconds=100.0, examples=10_000)
    plan = Schedule(small_config(), founder.genome, Memory([founder]), 2, 0.0)
    assert plan.child_seconds == pytest.approx(1 + 100 * plan.config.recipe.examples / 10_000)


def test_the_founder_has_a_share_of_a_timed_run():
    assert schedule()[0].founder_seconds == math.inf
    assert timed(10, 0.0)[0].founder_seconds == 120


def test_a_timed_run_ends_in_time_however_few_examples_are_left():
    plan, finalists = timed(10, 550.0, compare=False, polish_examples=10**9)
    examples = plan.polish_examples(finalists)
    assert plan.last_seconds(finalists, examples) <= plan.left
    assert plan.reserve(finalists) == 300


@pytest.mark.parametrize("compare", [False, True])
def test_the_polish_fills_the_time_that_is_left(compare):
    plan, finalists = timed(10, 200.0, compare=compare)
    examples = plan.polish_examples(finalists)
    left = 600 - 200 - END_SECONDS
    assert 0.97 * left < plan.last_seconds(finalists, examples) <= left


@pytest.mark.parametrize(
    ("slots", "expected"), [(1, 2 * 6.0 + 21.0), (2, CROWDED * 21.0), (8, CROWDED * 21.0)]
)
def test_the_founder_for_comparison_trains_beside_the_polish(slots, expected):
    plan, finalists = schedule(slots=slots, example_exponent=0.0, compare=True)
    assert plan.reference_examples(finalists, 500) == 2000  # 10 s per 1,000 examples, and 1 s besides
    polished = Finalists(finalists.longest, finalists.promising * 2)
    assert plan.last_seconds(polished, 500) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("compare", "slots", "expected"),
    [
        (True, 1, 21.0 + 3 * 6.0),
        (True, 2, CROWDED * (21.0 + 2 * 6.0)),
        (True, 8, CROWDED * (21.0 + 6.0)),
        (False, 2, CROWDED * (6.0 + 6.0)),
    ],
)
def test_a_teacher_trains_first(compare, slots, expected):
    plan, finalists = schedule(slots=slots, example_exponent=0.0, compare=compare, distill=0.5)
    polished = Finalists(finalists.longest, finalists.promising * 3)
    assert plan.last_seconds(polished, 500) == pytest.approx(expected)


def test_where_nobody_is_polished_nobody_teaches():
    plan, _ = schedule(compare=False, distill=0.5)
    assert plan.last_seconds(Finalists(0, []), 500) == 0


def test_the_founder_for_comparison_sees_as_many_examples_as_the_longest_line():
    plan, finalists = schedule(example_exponent=0.0)
    assert plan.reference_examples(finalists) == 1500
    assert plan.reference_examples(finalists, 700) == 2200
    assert plan.reference_examples(Finalists(9000, finalists.promising), 700) == 9000


def test_an_heir_sees_the_examples_of_those_before_it():
    four = [individual(number, SMALL, examples=1000) for number in range(1, 5)]
    plan, _ = schedule(example_exponent=0.0, heirs=2)
    assert plan.reference_examples(Finalists(1000, four), 700) == 1000 + 3 * 700
    assert [plan.heirs(Finalists(1000, four[:count])) for count in range(5)] == [0, 0, 0, 1, 2]
    for changes in ({"inherit": False}, {"mutations": "growths"}, {"objective": "accuracy-per-flop"}):
        assert schedule(heirs=2, **changes)[0].heirs(Finalists(1000, four)) == 0
    assert schedule(heirs=None)[0].heirs(Finalists(1000, four)) == 0
    waiting = plan.last_seconds(Finalists(1000, four), 500)
    assert waiting > schedule(example_exponent=0.0)[0].last_seconds(Finalists(1000, four), 500)


def test_a_front_is_drawn_out_by_prunes():
    four = Finalists(1000, [individual(number, SMALL) for number in range(1, 5)])
    plan, _ = schedule(outward=0.3)
    assert [plan.draws_out(Finalists(1000, four.promising[:count])) for count in range(3)] == [
        False,
        False,
        True,
    ]
    for changes in ({"outward": 0.0}, {"mutations": "growths"}, {"objective": "accuracy-per-flop"}):
        other, _ = schedule(**{"outward": 0.3, **changes})
        assert not other.draws_out(four)
        assert other.drawing_seconds(four, 500) == 0


def test_a_large_step_up_sees_half_of_what_the_founder_saw():
    assert schedule(founder_examples=999)[0].enlarged_examples == 500
    assert schedule(founder_examples=1)[0].enlarged_examples == 1


def test_cheaper_networks_see_more_examples():
    plan, _ = schedule(example_exponent=0.5)
    ratio = individual(0, small_founder()).flops / individual(1, SMALL).flops
    assert plan.scaled(1000, SMALL) == round(1000 * ratio**0.5)
    assert plan.scaled(1000, small_founder()) == 1000


def test_children_train_twice_as_long_after_some_generations_but_no_longer_than_the_founder():
    recipe = dataclasses.replace(small_config().recipe, examples=100)
    plan, _ = schedule(recipe=recipe, doubling=2, founder_examples=350)
    assert [plan.child_examples(g) for g in range(1, 9)] == [100, 100, 200, 200, 350, 350, 350, 350]
    assert [plan.first_alike(g) for g in range(1, 6)] == [1, 1, 3, 3, 5]
    plan, _ = schedule(recipe=recipe, doubling=None, founder_examples=10)
    assert (plan.child_examples(50), plan.first_alike(50)) == (100, 1)
    plan, _ = schedule(recipe=recipe, doubling=1, founder_examples=10)
    assert plan.child_examples(3) == 100


def test_generations_that_train_longer_take_longer():
    plan, finalists = schedule(generations=3, founder_examples=10**6, doubling=None)
    longer, _ = schedule(generations=3, founder_examples=10**6, doubling=1)
    for schedule_ in (plan, longer):
        schedule_.memory.add(individual(2, SMALL), schedule_.memory.individuals[0])
    reserve = plan.last_seconds(finalists, plan.config.polish_examples)
    remaining = [p.remaining(finalists, 1, 2, 4, plan.config.generations) - reserve for p in (plan, longer)]
    assert remaining[1] == pytest.approx(1.5 * remaining[0])


def test_what_remains_ends_at_nothing():
    plan, finalists = schedule()
    last = plan.config.generations
    assert plan.remaining(finalists, 0, 1, 4, last) is None  # as many as slots: too few to tell by
    plan.memory.add(individual(2, SMALL), plan.memory.individuals[0])
    in_children = plan.remaining(finalists, 1, 2, 4, plan.config.generations)
    assert in_children == pytest.approx(
        4 * plan.child_seconds / 2 + plan.last_seconds(finalists, plan.config.polish_examples)
    )
    polish = plan.config.generations + 1
    before = plan.remaining(finalists, 2, polish, 1, plan.config.generations)
    assert 0 < before < in_children
    plan.memory.add(replace(individual(3, SMALL), generation=polish), plan.memory.individuals[0])
    assert plan.remaining(finalists, 2, polish, 1, plan.config.generations) == 0


def test_generations_that_train_as_long_are_alike():
    plan, _ = schedule(doubling=5, founder_examples=1000)  # children see 256, 512, and then 1000 for good
    lengths = [plan.child_examples(generation) for generation in range(1, 31)]
    assert lengths == [256] * 5 + [512] * 5 + [1000] * 20
    assert [plan.first_alike(generation) for generation in (1, 5, 6, 10, 11, 16, 30)] == [
        1,
        1,
        6,
        6,
        11,
        11,
        11,
    ]


def test_a_run_that_has_more_time_breeds_again():
    plan, finalists = timed(30, 900.0, compare=False, polish_share=0.5)
    assert not plan.has_time(finalists)
    plan.polished_at = 900.0  # the first half hour's polish had its share
    assert plan.reserve(finalists) == 450
    assert plan.has_time(finalists)
