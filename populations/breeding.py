"""Breeding: from a population to the order that a worker develops. No torch, nothing live.

Everything random is drawn from seeds derived from the run's seed and the child's id, so a child is the
same whenever and wherever it is bred.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from deap import base, tools

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.edits import AnyEdit, EditError
from evo_topo.genome import Genome
from evo_topo.mutation import Proposal, propose, rivals
from populations.config import Config
from populations.fitness import Member
from populations.individual import Individual, Outcome, Screened
from populations.orders import Order, Teacher

DUELLISTS = 4
"""Members that DEAP's tournament by dominance and crowding takes at a time."""
STEP, OUTWARD = 0.1, 0.5
"""Smallest size of a mutation, as a share of the parent's FLOPs, and of one that draws the front out."""
NEAR = 0.25
"""Of the way from the accuracy asked for to the best, what counts as near the former."""
TRIES = 8
"""Mutations that are drawn until one gives a network that is new to the run."""


class Birth(NamedTuple):
    """A child that is planned: what is known of it before it is developed.

    Attributes:
        id: Its number.
        generation: Its generation.
        parent: Whom it inherits from; None for a founder.
        edit: Its mutation; None for a founder, and where it only trains on.
        genome: Its network as data.
        predicted_loss_change: By the parent's prices; None where nothing is predicted.
        promised_loss_change: What new parameters promise.
        rivals: Other mutations of the parent; the worker trains the best of them all.
        hurdle: The most that its halfway loss may be; None for no limit.
    """

    id: int
    generation: int
    parent: Individual | None
    edit: AnyEdit | None
    genome: Genome
    predicted_loss_change: float | None
    promised_loss_change: float | None = None
    rivals: tuple[Proposal, ...] = ()
    hurdle: float | None = None

    @property
    def options(self) -> list[Birth]:
        """The births of which the worker chooses one."""
        others = [
            Birth(*self[:3], rival.edit, rival.genome, rival.predicted_loss_change, rival.promise)
            for rival in self.rivals
        ]
        return [self, *others]


def make_toolbox(config: Config) -> base.Toolbox:
    """DEAP's toolbox: how parents are chosen, mutated, and survivors selected."""
    toolbox = base.Toolbox()
    toolbox.register("mutate", propose)
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
    parents: list[Member],
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
        parent: Individual = toolbox.choose(parents)[0].individual
    prices = parent.outcome.prices
    if prices is None or rng.random() < config.train_on:
        return further_training(parent, id, generation)
    limit = max(ceiling, parent.flops)  # from above the ceiling, prunes lead down step by step
    try:
        mutate = partial(
            toolbox.mutate,
            parent.genome,
            prices,
            rng,
            calibration=calibration,
            mutations=config.mutations,
            smallest=smallest_step(parent, [member.individual for member in parents], config.accuracy_floor),
        )
        for _ in range(TRIES):
            proposal = mutate(growth=config.growth)
            if count_flops(proposal.genome) > limit:
                proposal = mutate(growth=0.0)
            if proposal.genome.fingerprint not in known and count_flops(proposal.genome) <= limit:
                break
    except EditError:  # no edit applies: it can still train on
        return further_training(parent, id, generation)
    if count_flops(proposal.genome) > limit:
        return further_training(parent, id, generation)
    predicted, promised = proposal.predicted_loss_change, proposal.promise
    if prices.criterion != "obd":
        return Birth(id, generation, parent, proposal.edit, proposal.genome, None)
    most = config.screened - 1 if config.inherit else 0  # what is not inherited cannot be measured
    others = rivals(parent.genome, prices, rng, proposal, most, calibration)
    new = tuple([rival for rival in others if rival.genome.fingerprint not in known])
    return Birth(id, generation, parent, proposal.edit, proposal.genome, predicted, promised, new)


def smallest_step(parent: Individual, rivals: Sequence[Individual], floor: float) -> float:
    """Smallest size of its mutations: larger where the front is to be drawn out to cheaper networks.

    Below the cheapest of all there is nobody to compete with, so it need not be approached in small steps;
    not so near the accuracy that is asked for, where large steps lead nowhere.

    Args:
        parent: Whom a child is bred from.
        rivals: All that may be bred from.
        floor: Least accuracy asked for.
    """
    if parent.flops > min(rival.flops for rival in rivals):
        return STEP
    best = max(rival.outcome.accuracy or 0.0 for rival in rivals)
    enough = floor + NEAR * (best - floor)
    return OUTWARD if (parent.outcome.accuracy or 0.0) >= enough else STEP


def further_training(parent: Individual, id: int, generation: int) -> Birth:  # noqa: A002
    """A child that is not edited at all and only trains on."""
    return Birth(id, generation, parent, None, parent.genome, None)


def order_for(
    birth: Birth,
    config: Config,
    run_dir: Path,
    examples: int,
    rate: float = 1.0,
    teacher: Teacher | None = None,
) -> Order:
    """What a worker needs to develop a birth.

    Args:
        birth: The child.
        config: Of the run.
        run_dir: Its folder.
        examples: Training examples that the child sees.
        rate: Its largest learning rate, as a share of the recipe's.
        teacher: Whom it learns from beside the targets.
    """
    parent = birth.parent if config.inherit else None
    return Order(
        id=birth.id,
        run_dir=str(run_dir),
        genome=(parent or birth).genome.to_json(),
        parent=None if parent is None else parent.id,
        parent_sha256="" if parent is None else parent.outcome.weights_sha256,
        edit=None if parent is None or birth.edit is None else birth.edit.to_json(),
        seed=derive_seed(config.seed, "child", birth.id),
        recipe=dataclasses.replace(
            config.recipe, examples=examples, learning_rate=rate * config.recipe.learning_rate
        ),
        criterion=config.criterion,
        probe_examples=config.probe_examples,
        teacher=teacher,
        hurdle=birth.hurdle,
    )


def scaled_examples(examples: int, genome: Genome, founder: Genome, exponent: float) -> int:
    """Training examples of a network, more for one that costs less than the founder.

    Args:
        examples: For a network as costly as the founder, or more costly.
        genome: The network.
        founder: The founder.
        exponent: 0 gives every network as many examples, 1 as many FLOPs.
    """
    ratio = max(1.0, count_flops(founder) / max(count_flops(genome), 1))
    return round(examples * math.pow(ratio, exponent))


def as_individual(birth: Birth, outcome: Outcome, inherits: bool = True) -> Individual:
    """The individual that a birth became; where it does not inherit, it owes no training to its parent."""
    parent = birth.parent
    trained = parent if inherits else None
    chosen, outcome = _chosen(birth, outcome)
    return Individual(
        id=birth.id,
        parent=None if parent is None else parent.id,
        generation=birth.generation,
        edit=chosen.edit,
        genome=chosen.genome,
        predicted_loss_change=chosen.predicted_loss_change,
        promised_loss_change=chosen.promised_loss_change,
        inherited_examples=0 if trained is None else trained.total_examples,
        inherited_flops=0 if trained is None else trained.total_flops,
        inherited_seconds=0.0 if trained is None else trained.total_seconds,
        outcome=outcome,
    )


def _chosen(birth: Birth, outcome: Outcome) -> tuple[Birth, Outcome]:
    """What the worker chose, and the outcome with all that there was to choose from, also where it failed."""
    options = birth.options
    if len(options) == 1:
        return birth, outcome
    screened = outcome.screened or tuple(
        Screened(option.edit, option.genome.fingerprint, count_flops(option.genome), None)
        for option in options
        if option.edit is not None
    )
    [chosen] = [option for option in options if option.edit == screened[0].edit]
    return chosen, msgspec.structs.replace(outcome, screened=screened)


def derive_seed(*parts: object) -> int:
    """A seed of 32 bits for what the parts name; the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big")


@contextmanager
def global_random(seed: int) -> Iterator[None]:
    """DEAP draws from the module `random`: seeded here, and put back as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
