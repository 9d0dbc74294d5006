"""Breeding: from a population to the births of its children. No torch, nothing live.

Everything random is drawn from seeds derived from the run's seed and the child's id, so a child is the
same whenever and wherever it is bred.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Literal

from deap import base, tools

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.edits import EditError
from evo_topo.enlarging import LEAST_STEP_UP, propose_larger
from evo_topo.mutation import Proposal, propose, rivals
from populations.births import Birth, further_training
from populations.config import Config
from populations.fitness import Member
from populations.individual import Individual
from populations.parents import Parents
from populations.seeds import derive_seed, global_random

DUELLISTS = 4
"""Members that DEAP's tournament by dominance and crowding takes at a time."""
STEP, OUTWARD = 0.1, 0.5
"""Smallest size of a mutation, as a share of the parent's FLOPs, and of one that draws the front out."""
End = Literal["cheap", "costly"]
"""Of a front."""
TRIES = 8
"""Mutations that are drawn until one gives a network that is new to the run."""


def make_toolbox(config: Config) -> base.Toolbox:
    """DEAP's toolbox: how parents are chosen, mutated, and survivors selected."""
    toolbox = base.Toolbox()
    toolbox.register("mutate", propose)
    toolbox.register("enlarge", propose_larger)
    if config.objective == "pareto":
        toolbox.register("choose", choose_by_crowding)
        toolbox.register("select", tools.selNSGA2, k=config.parents, nd="log")  # not quadratic
    else:
        toolbox.register("choose", tools.selTournament, k=1, tournsize=2)
        toolbox.register("select", tools.selBest, k=config.parents)
    return toolbox


def choose_by_crowding(members: list[Member]) -> list[Member]:
    """One of two random members: who dominates the other, else whose part of the front is less crowded.

    This is how NSGA-II mates (Deb et al. 2002), so the ends of the front, which nobody is beyond, are bred
    from more often than its middle.

    Args:
        members: From `Judge.parents`.
    """
    chosen: list[Member]
    if len(members) < DUELLISTS:
        chosen = tools.selRandom(members, 1)
    else:
        chosen = tools.selTournamentDCD(random.sample(members, DUELLISTS), DUELLISTS)[:1]
    return chosen


def breed(
    config: Config,
    toolbox: base.Toolbox,
    parents: Parents,
    ceiling: float,
    id: int,  # noqa: A002
    generation: int,
    calibration: Calibration,
    known: Container[str] = (),
) -> Birth:
    """Plans a child: a parent, and a mutation of it or more training.

    Args:
        config: Of the run.
        toolbox: Of `make_toolbox`.
        parents: Who may be its parent.
        ceiling: Most FLOPs that it may have, or its parent's if those are more; a mutation beyond is drawn
            again, as a prune.
        id: Its number.
        generation: Its generation.
        calibration: What predictions came to so far.
        known: Fingerprints of networks that were tried before: a mutation that leads there is drawn again.
    """
    seed = derive_seed(config.seed, "breed", id)
    rng = random.Random(seed)
    with global_random(seed):
        parent, end = _draw_parent(config, toolbox, parents, ceiling, rng)
    prices = parent.outcome.prices
    if prices is None or rng.random() < config.train_on:
        return further_training(parent, id, generation)
    limit = max(ceiling, parent.flops)  # from above the ceiling, prunes lead down step by step
    if end == "costly":
        enlarge = partial(toolbox.enlarge, parent.genome, prices, rng, most=limit / parent.flops - 1)
        proposal = _draw_new([enlarge], limit, known)
    else:
        smallest = OUTWARD if end == "cheap" else STEP
        growth = 0.0 if end == "cheap" else config.growth  # what grows does not draw the cheap end out
        mutate = partial(
            toolbox.mutate,
            parent.genome,
            prices,
            rng,
            calibration=calibration,
            mutations=config.mutations,
            smallest=smallest,
        )
        proposal = _draw_new([partial(mutate, growth=growth), partial(mutate, growth=0.0)], limit, known)
    if proposal is None:
        return further_training(parent, id, generation)
    is_enlarged = end == "costly"
    blank = Birth(id, generation, parent, proposal.edit, proposal.genome, None, is_enlarged=is_enlarged)
    if prices.criterion != "obd" or is_enlarged:  # a large step up does not keep the function: it shrinks
        return blank
    most = config.screened - 1 if config.inherit else 0  # what is not inherited cannot be measured
    others = rivals(parent.genome, prices, rng, proposal, most, calibration)
    new = tuple([rival for rival in others if rival.genome.fingerprint not in known])
    return blank._replace(
        predicted_loss_change=proposal.predicted_loss_change,
        promised_loss_change=proposal.promise,
        rivals=new,
    )


def _draw_parent(
    config: Config, toolbox: base.Toolbox, parents: Parents, ceiling: float, rng: random.Random
) -> tuple[Individual, End | None]:
    """The parent of a child, and the end of the front that the child is to draw out, if any."""
    upward = parents.upward if config.mutations != "prunes" and config.objective == "pareto" else None
    has_room = upward and (1 + LEAST_STEP_UP) * upward.flops <= ceiling
    if upward and has_room and rng.random() < config.upward:
        return upward, "costly"
    parent: Individual = toolbox.choose(parents.members)[0].individual
    outward = None if config.mutations == "growths" else parents.outward
    if outward and rng.random() < config.outward:
        parent = outward
    return parent, "cheap" if parent is outward else None


def _draw_new(ways: Sequence[Callable[[], Proposal]], limit: float, known: Container[str]) -> Proposal | None:
    """A mutation within a limit of FLOPs, to a network that is new to the run if one is soon found.

    Each way is drawn where those before it lead beyond the limit. None where no edit applies, or the last one
    drawn is beyond the limit.
    """
    try:
        for _ in range(TRIES):
            for way in ways:
                proposal = way()
                if is_within := count_flops(proposal.genome) <= limit:
                    break
            if is_within and proposal.genome.fingerprint not in known:
                break
    except EditError:
        return None
    return proposal if is_within else None
