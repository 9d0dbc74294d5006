"""Births: children that are planned, what a worker needs to develop them, and what became of them.

No torch, nothing live.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import msgspec

from evo_topo.cost import count_flops
from evo_topo.edits import AnyEdit
from evo_topo.genome import Genome
from evo_topo.mutation import Proposal
from populations.config import Config
from populations.files import START
from populations.individual import Individual, Outcome, Screened
from populations.orders import Order, Teacher
from populations.seeds import derive_seed

SHRINK = 0.2
"""Of the inherited weights, what a large step up keeps; fresh ones make up for the rest. On Fashion-MNIST, .1
to .3 were better than weights all inherited or all fresh."""


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
        is_enlarged: Whether it is a large step up, which takes a long training to be worth anything.
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
    is_enlarged: bool = False

    @property
    def options(self) -> list[Birth]:
        """The births of which the worker chooses one."""
        others = [
            Birth(*self[:3], rival.edit, rival.genome, rival.predicted_loss_change, rival.promise)
            for rival in self.rivals
        ]
        return [self, *others]


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
    # weights that the founder came with may know more than this training can teach
    is_shrunk = parent is not None and birth.is_enlarged and not (run_dir / START).exists()
    return Order(
        id=birth.id,
        run_dir=str(run_dir.absolute()),
        genome=(parent or birth).genome.to_json(),
        parent=None if parent is None else parent.id,
        parent_sha256="" if parent is None else parent.outcome.weights_sha256,
        edit=None if parent is None or birth.edit is None else birth.edit.to_json(),
        seed=derive_seed(config.seed, "child", birth.id),
        recipe=dataclasses.replace(
            config.recipe, examples=examples, learning_rate=rate * config.recipe.learning_rate
        ),
        probe_examples=config.probe_examples,
        teacher=teacher,
        hurdle=birth.hurdle,
        shrink=SHRINK if is_shrunk else 1.0,
    )


def order_for_prices(individual: Individual, config: Config, run_dir: Path) -> Order:
    """What a worker needs to price the mutations of an individual.

    Args:
        individual: Developed; its weights are in the run folder.
        config: Of the run.
        run_dir: Its folder.
    """
    return Order(
        id=individual.id,
        run_dir=str(run_dir.absolute()),
        genome=individual.genome.to_json(),
        parent=individual.id,
        parent_sha256=individual.outcome.weights_sha256,
        edit=None,
        seed=derive_seed(config.seed, "child", individual.id),
        recipe=config.recipe,
        probe_examples=config.probe_examples,
        criterion=config.criterion,
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
        is_enlarged=birth.is_enlarged,
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
