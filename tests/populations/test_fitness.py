import itertools
import math
import random

import msgspec
import pytest
from deap import tools
from hypothesis import given
from hypothesis import strategies as st

from populations.fitness import (
    Member,
    chance_of,
    credited,
    estimated_accuracies,
    fold_accuracy,
    is_harmed,
    pareto_front,
    spread_front,
)
from populations.individual import Individual, Outcome
from tests.small import small_founder


def individual(correct: int, number: int = 0) -> Individual:
    outcome = Outcome("ok", correct=f"{correct:x}", accuracy=correct.bit_count() / 8)
    return Individual(number, None, 0, None, small_founder(), None, None, 0, 0, 0.0, outcome)


def test_fold_accuracy_counts_only_the_fold():
    member = individual(0b1011_0001)
    assert fold_accuracy(member, 8) == 4 / 8
    assert fold_accuracy(member, 8, 0b1111_0000) == 3 / 4
    assert fold_accuracy(member, 8, 0b0000_1110) == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_who_was_harmed_lost_more_examples_than_chance_takes(pairs):
    before, after = (sum(pair[i] << place for place, pair in enumerate(pairs)) for i in (0, 1))
    changes = [b - a for a, b in pairs if a != b]
    is_worse = bool(changes) and -sum(changes) / math.sqrt(len(changes)) > 2
    assert is_harmed(individual(after), individual(before)) == is_worse


@pytest.mark.parametrize(("lost", "gained", "harmed"), [(4, 0, False), (5, 0, True), (10, 4, False)])
def test_what_chance_may_take_is_no_harm(lost, gained, harmed):
    before = (1 << lost) - 1
    after = ((1 << gained) - 1) << lost
    assert is_harmed(individual(after), individual(before)) == harmed


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_pareto_front_equals_the_definition(points):
    front = pareto_front(points, lambda p: p[0], lambda p: p[1])
    best = {p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)}
    assert set(front) == best
    assert len(front) == len(best)
    assert all(a[1] < b[1] for a, b in itertools.pairwise(front))


POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 1000)), min_size=1, max_size=12, unique=True)


@given(POINTS, st.integers(0, 5), st.integers(1, 6))
def test_a_spread_front_is_short_and_near_the_front(points, tolerance, most):
    spread = spread_front(points, lambda p: p[0], lambda p: p[1], tolerance, most)
    near = [p for p in points if all(q[0] - tolerance < p[0] for q in points if q[1] < p[1])]
    assert len(spread) == min(most, len(spread_front(points, lambda p: p[0], lambda p: p[1], tolerance, 99)))
    assert set(spread) <= set(near)
    assert spread == sorted(spread, key=lambda p: p[1])


def test_of_two_in_a_crowd_the_less_accurate_goes_but_the_ends_stay():
    points = [(0.90, 100), (0.91, 300), (0.93, 340), (0.92, 350), (0.94, 5000), (0.95, 9000)]
    for most, gone in ((5, {3}), (4, {3, 1}), (3, {3, 1, 4}), (2, {3, 1, 4, 2}), (1, {0, 1, 2, 3, 4})):
        got = spread_front(points, lambda p: p[0], lambda p: p[1], 0.02, most)
        assert got == [p for i, p in enumerate(points) if i not in gone]
    assert spread_front([(0.9, 100), (0.895, 200)], lambda p: p[0], lambda p: p[1], 0.01, 6) != [(0.9, 100)]


def test_costly_networks_lie_nearer_together_than_ratios_of_cost_would_have_them():
    points = [(0.90, 1), (0.91, 12), (0.92, 150), (0.93, 1000)]  # by ratios, 150 would have the least room
    spread = spread_front(points, lambda p: p[0], lambda p: p[1], 0.0, 3)
    assert [cost for _, cost in spread] == [1, 150, 1000]


def test_chance_is_what_repeated_measurements_show():
    rng = random.Random(0)
    gaps = [
        sum(rng.random() < 0.9 for _ in range(50)) - sum(rng.random() < 0.9 for _ in range(50))
        for _ in range(4000)
    ]
    spread = math.sqrt(math.fsum((gap / 50) ** 2 for gap in gaps) / len(gaps))
    assert chance_of([0.9, 0.9], 50) == pytest.approx(spread, rel=0.05)


def measured(accuracy: float, count: int, rng: random.Random) -> Individual:
    """A network of the given true accuracy, measured on so many examples; its soft error tells the truth."""
    correct = sum((rng.random() < accuracy) << i for i in range(count))
    outcome = Outcome(
        "ok",
        correct=f"{correct:x}",
        accuracy=correct.bit_count() / count,
        soft_error=0.3 + 0.5 * (1 - accuracy),
    )
    return Individual(0, None, 0, None, small_founder(), None, None, 0, 0, 0.0, outcome)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 10**7)), min_size=1, max_size=8), st.integers(1, 10**6)
)
def test_who_has_trained_less_gets_the_more_credit(measurements, least):
    accuracies, examples = [list(column) for column in zip(*measurements, strict=True)]
    individuals = [msgspec.structs.replace(individual(0), inherited_examples=n) for n in examples]
    found = credited(individuals, accuracies, least)
    for accuracy, seen, estimate in zip(accuracies, examples, found, strict=True):
        assert accuracy - 1e-9 <= estimate <= 1
        if seen == max(examples):
            assert estimate == pytest.approx(accuracy)
        times = max(max(examples), least) / max(seen, least)
        assert math.isclose(1 - accuracy, (1 - estimate) * times**0.05, abs_tol=1e-9)


@pytest.mark.parametrize("count", [100, 400])
def test_estimates_are_closer_to_the_truth_than_measurements(count):
    rng = random.Random(0)
    truth = [rng.uniform(0.93, 0.99) for _ in range(200)]
    individuals = [measured(accuracy, count, rng) for accuracy in truth]
    estimates = estimated_accuracies(individuals, count, 2**count - 1, "soft_error")

    def error(values):
        return math.fsum((value - true) ** 2 for value, true in zip(values, truth, strict=True))

    assert error(estimates) < 0.3 * error([fold_accuracy(i, count) for i in individuals])


def test_a_soft_error_that_says_nothing_leaves_measurements_alone():
    rng = random.Random(0)
    individuals = [measured(rng.uniform(0.5, 0.9), 10_000, rng) for _ in range(30)]
    shuffled = [
        msgspec.structs.replace(i, outcome=msgspec.structs.replace(i.outcome, soft_error=rng.random()))
        for i in individuals
    ]
    estimates = estimated_accuracies(shuffled, 10_000, 2**10_000 - 1, "soft_error")
    assert estimates == pytest.approx([fold_accuracy(i, 10_000) for i in shuffled], abs=1e-3)
    assert estimated_accuracies(shuffled[:3], 10_000, 1, "soft_error") == [
        fold_accuracy(i, 10_000, 1) for i in shuffled[:3]
    ]


@pytest.mark.parametrize("objective", ["pareto", "accuracy-per-flop"])
def test_below_the_floor_one_loses_against_everyone_above(objective):
    below = Member(individual(0b0000_0001), objective, 0.5, 1 / 8)
    above = Member(individual(0b0111_1111), objective, 0.5, 7 / 8)
    worst = Member(individual(0), objective, 0.5, 0.0)
    assert above.fitness > below.fitness
    assert below.fitness > worst.fitness
    if objective == "pareto":
        assert above.fitness.dominates(below.fitness)


def test_selection_is_free_of_nan():
    members = [
        Member(individual(bits, bits), "pareto", 0.5, bits.bit_count() / 8) for bits in (0, 1, 255, 127, 15)
    ]
    tools.emo.assignCrowdingDist(members)
    assert not any(math.isnan(member.fitness.crowding_dist) for member in members)
    assert tools.selNSGA2(members, 3)[0].individual.id == 255
