"""Children of one parent, bred but not developed."""

import random

import msgspec

from evo_topo.calibration import Calibration
from evo_topo.mutation import random_prices
from populations.breeding import breed, make_toolbox
from populations.fitness import Member
from populations.individual import Individual, Outcome
from populations.parents import Parents
from tests.small import small_config, small_founder


def parent(genome=None, **outcome):
    genome = genome or small_founder()
    outcome = {"accuracy": 0.5, "prices": random_prices(genome, random.Random(0)), **outcome}
    return Individual(7, None, 2, None, genome, None, None, 0, 0, 0.0, Outcome("ok", **outcome))


def children(config, member, count, ceiling=float("inf"), known=()):
    toolbox, parents = make_toolbox(config), parents_of(member, floor=config.accuracy_floor)
    return [breed(config, toolbox, parents, ceiling, i, 3, Calibration(), known) for i in range(count)]


def parents_of(*members, floor, founder_flops=float("inf")):
    """Where the founder is larger than any of them, nobody is enlarged."""
    return Parents.of(list(members), floor, founder_flops)


def member(individual):
    return Member(individual, "pareto", 0.0, individual.outcome.accuracy)


def screening_births(**changes):
    genome = small_founder()
    prices = msgspec.structs.replace(random_prices(genome, random.Random(0)), criterion="obd")
    config = small_config(train_on=0.0, growth=0.0, **changes)
    return children(config, member(parent(prices=prices)), 12)
