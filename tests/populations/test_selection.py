import dataclasses
import math
import random
import statistics
from collections import Counter

import pytest
from msgspec.structs import replace

from evo_topo.cost import count_flops
from populations.breeding import make_toolbox
from populations.founders import conv_net
from populations.individual import Individual, Outcome
from populations.seeds import global_random
from populations.selection import Judge
from tests.small import small_config

COUNT = 200


def population():
    """Networks of all sizes; the larger, the fewer examples they get wrong."""
    rng, members = random.Random(0), []
    for number, width in enumerate((2, 3, 4, 6, 8, 12, 16, 24)):
        rate = 0.8 + 0.02 * number
        correct = sum((rng.random() < rate) << i for i in range(COUNT))
        outcome = Outcome(
            "ok",
            correct=f"{correct:x}",
            accuracy=correct.bit_count() / COUNT,
            soft_error=1 - rate,
            loss=2 * (1 - rate),
        )
        genome = conv_net((1, 8, 8), 10, (width, width), (1, 2))
        members.append(Individual(number, None, 0, None, genome, None, None, 0, 0, 0.0, outcome))
    return members


def test_the_front_rises_in_cost_and_holds_the_floor():
    judge, everyone = Judge(small_config(accuracy_floor=0.85), COUNT), population()
    front = judge.front(everyone)
    flops = [count_flops(i.genome) for i in front]
    assert flops == sorted(flops)
    assert front[0].id > 0  # below the floor
    errors = [i.outcome.soft_error for i in front]
    assert errors == sorted(errors, reverse=True)
    # where nobody reaches the floor, the front is what there is
    assert Judge(small_config(accuracy_floor=0.999), COUNT).front(everyone)


def test_who_had_bad_luck_on_few_examples_stays_on_the_front():
    everyone = population()
    before, unlucky = everyone[-2].outcome, everyone[-1].outcome  # which has the lowest soft error of all
    fewer = (1 << int(before.correct, 16).bit_count() - 1) - 1  # one right answer less than the cheaper one
    everyone[-1] = replace(everyone[-1], outcome=replace(unlucky, correct=f"{fewer:x}"))
    assert [i.id for i in Judge(small_config(), COUNT).front(everyone)[-2:]] == [6, 7]


def test_where_soft_errors_say_nothing_the_front_is_that_of_measured_accuracies():
    everyone = [replace(i, outcome=replace(i.outcome, soft_error=0.5, loss=0.5)) for i in population()]
    right = [int(i.outcome.correct, 16).bit_count() for i in Judge(small_config(), COUNT).front(everyone)]
    assert right == sorted(set(right))
    assert right[-1] == max(int(i.outcome.correct, 16).bit_count() for i in everyone)


def test_those_polished_span_the_front():
    judge, everyone = Judge(small_config(polished=3), COUNT), population()
    promising = judge.promising(everyone)
    assert len(promising) == 3
    ratio = count_flops(promising[-1].genome) / count_flops(promising[0].genome)
    assert ratio > 0.2 * count_flops(everyone[-1].genome) / count_flops(everyone[0].genome)
    assert len(Judge(small_config(polished=20), COUNT).promising(everyone)) >= 6


def test_whoever_is_polished_survives_however_bad():
    judge, everyone = Judge(small_config(parents=4), COUNT), population()
    toolbox = make_toolbox(judge.config)
    worst = [replace(i, outcome=replace(i.outcome, correct="0")) for i in everyone[-2:]]
    survivors = judge.select_polished(worst, everyone[:-2], 1, toolbox)
    assert survivors[:2] == worst
    assert len({i.id for i in survivors}) == 4
    assert not set(worst) & set(judge.select([*everyone[:-2], *worst], 1, toolbox))  # without that rule
    assert judge.select_polished(everyone, [], 1, toolbox) == everyone  # more than survive otherwise


def test_who_fails_is_neither_able_nor_preferred():
    judge, (poor, *_, good) = Judge(small_config(accuracy_floor=0.85), COUNT), population()
    assert (judge.is_able(poor), judge.is_able(good)) == (False, True)
    assert (judge.prefers(good, poor), judge.prefers(poor, good), judge.prefers(good, good)) == (
        True,
        False,
        False,
    )
    lost = replace(good, outcome=Outcome("diverged"))
    assert not judge.is_able(lost)
    assert not judge.prefers(lost, poor)


def test_the_cheap_end_of_the_front_is_bred_from_more_often():
    judge, everyone = Judge(small_config(accuracy_floor=0.0), COUNT), population()
    dominated = replace(everyone[-1], id=99, outcome=replace(everyone[-1].outcome, correct="1"))
    members = judge.parents([*everyone, dominated], 1)
    choose = make_toolbox(judge.config).choose
    with global_random(0):
        chosen = Counter(choose(members)[0].individual.id for _ in range(2000))
    usual = statistics.median(chosen[i] for i in range(1, 7))
    assert chosen[0] > 1.4 * usual > chosen[7]
    assert chosen[99] < 20
    with global_random(0):
        assert {choose(members[:3])[0].individual.id for _ in range(50)} == {0, 1, 2}  # too few to duel


def test_the_costly_end_is_as_crowded_as_its_place():
    judge, everyone = Judge(small_config(accuracy_floor=0.0), COUNT), population()
    crowding = {m.individual.id: m.fitness.crowding_dist for m in judge.parents(everyone, 1)}
    assert crowding[0] == math.inf > crowding[7]
    lonely = [i for i in everyone if i.id not in (5, 6)]  # nobody near the costliest
    alone = {m.individual.id: m.fitness.crowding_dist for m in judge.parents(lonely, 1)}
    assert alone[7] > max(crowding[7], *(alone[i] for i in (1, 2, 3)))
    two = judge.parents([everyone[0], everyone[7]], 1)
    assert [m.fitness.crowding_dist for m in two] == [math.inf, math.inf]


def test_a_generation_is_judged_on_its_own_draw_of_examples():
    judge, everyone = Judge(small_config(), COUNT), population()
    fitness = [[m.fitness.values for m in judge.members(everyone, g)] for g in (1, 1, 2)]
    assert fitness[0] == fitness[1] != fitness[2]


def test_selection_keeps_as_many_as_there_are_parents_and_only_draws_from_its_seed():
    config = small_config(parents=4)
    judge, toolbox, everyone = Judge(config, COUNT), make_toolbox(config), population()
    survivors = judge.select(everyone, 1, toolbox)
    random.seed(5)
    assert judge.select(everyone, 1, toolbox) == survivors
    assert len(survivors) == 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_judge_unless_targets_are_smoothed(smoothing):
    """Where soft errors are turned round, only those who are judged by them fare otherwise."""
    config = small_config()
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, label_smoothing=smoothing))
    everyone = [replace(i, outcome=replace(i.outcome, loss=i.outcome.soft_error)) for i in population()]
    flipped = [replace(i, outcome=replace(i.outcome, soft_error=1 - i.outcome.loss)) for i in everyone]
    honest, odd = (Judge(config, COUNT).members(some, 1) for some in (everyone, flipped))
    same = [a.fitness.values == b.fitness.values for a, b in zip(honest, odd, strict=True)]
    assert all(same) if smoothing == 0 else not all(same)


def test_those_who_were_taught_are_judged_by_soft_errors():
    everyone = population()
    worse = everyone[-1]  # whose loss is the highest, as taught ones may have, and its soft error the lowest
    everyone[-1] = replace(
        worse, outcome=replace(worse.outcome, loss=3.0, correct=everyone[-2].outcome.correct)
    )
    config = small_config(distill=0.5)
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, label_smoothing=0.0))
    judge = Judge(config, COUNT)
    assert everyone[-1] not in judge.front(everyone)
    assert everyone[-1] in judge.front(everyone, is_taught=True)
