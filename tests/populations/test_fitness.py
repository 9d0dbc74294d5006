import itertools
import math

import pytest
from deap import tools
from hypothesis import given
from hypothesis import strategies as st

from populations.fitness import Member, fold_accuracy, pareto_front
from populations.individual import Individual, Outcome
from tests.small import small_founder


def individual(correct: int, number: int = 0) -> Individual:
    outcome = Outcome("ok", correct=f"{correct:x}", accuracy=correct.bit_count() / 8)
    return Individual(number, None, 0, None, small_founder(), None, 0, 0, 0.0, outcome)


def test_fold_accuracy_counts_only_the_fold():
    member = individual(0b1011_0001)
    assert fold_accuracy(member, 8) == 4 / 8
    assert fold_accuracy(member, 8, 0b1111_0000) == 3 / 4
    assert fold_accuracy(member, 8, 0b0000_1110) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_pareto_front_equals_the_definition(points):
    front = pareto_front(points, lambda p: p[0], lambda p: p[1])
    best = {p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)}
    assert set(front) == best
    assert len(front) == len(best)
    assert all(a[1] < b[1] for a, b in itertools.pairwise(front))


@pytest.mark.parametrize("objective", ["pareto", "accuracy-per-flop"])
def test_below_the_floor_one_loses_against_everyone_above(objective):
    below = Member(individual(0b0000_0001), objective, 0.5, 8)
    above = Member(individual(0b0111_1111), objective, 0.5, 8)
    worst = Member(individual(0), objective, 0.5, 8)
    assert above.fitness > below.fitness
    assert below.fitness > worst.fitness
    if objective == "pareto":
        assert above.fitness.dominates(below.fitness)


def test_selection_is_free_of_nan():
    members = [Member(individual(bits, bits), "pareto", 0.5, 8) for bits in (0, 1, 255, 127, 15)]
    tools.emo.assignCrowdingDist(members)
    assert not any(math.isnan(member.fitness.crowding_dist) for member in members)
    assert tools.selNSGA2(members, 3)[0].individual.id == 255
