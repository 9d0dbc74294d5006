"""Architectures searched by Optuna's NSGA-II and trained from scratch; then the front trains on.

The genetic algorithm is that of Deb et al. 2002 as Optuna has it, with a population as large as evo_topo's.
It selects by the same two objectives, accuracy floor included; no network exceeds evo_topo's ceiling of
MACs, none is trained twice, and the founder's architecture is the first that it tries. The last phase is that
of evo_topo: the same share of the time, the same choice of networks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from analysis.benchmarks.peers.cells import Bench, Network, Setting
from analysis.benchmarks.peers.space import FOUNDERS, as_parameters, staged_net, suggest_stages
from evo_topo.cost import count_flops, count_macs
from evo_topo.genome import Genome
from evo_topo.task_file import load_task
from populations.births import Birth, as_individual, further_training, order_for, scaled_examples
from populations.config import Config
from populations.fitness import Member
from populations.individual import Individual
from populations.orders import DATA
from populations.selection import Judge
from populations.timing import development_seconds, makespan, most_that_fit
from populations.workers import Crew

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

SETTINGS: tuple[Setting, ...] = ({"examples": 0.1}, {"examples": 0.3}, {"examples": 1.0})
"""What `--tuning` compares: training examples of a trial, as a multiple of those that evo_topo's
founder starts with."""
SETTING = SETTINGS[1]
"""What tuning chose."""
RECENT = 20
"""Trials whose seconds stand for those of the next."""
REFUSALS = 1000
"""Networks in a row, too costly or known, after which one is trained all the same."""


class Tried(NamedTuple):
    """A network that was trained, and when it was known."""

    individual: Individual
    seconds: float


def searched(bench: Bench, setting: Setting = SETTING) -> list[Network]:
    """Searches, then trains the front on; every network that was measured on the way.

    Raises:
        ImportError: When Optuna is not installed.
    """
    config = dataclasses.replace(bench.config, probe_examples=1)  # nobody breeds from what they tell
    trials = _search(bench, config, setting)
    polished = _train_on(bench, config, [tried.individual for tried in trials])
    return [
        Network(i.id, i.genome, i.outcome.weights_sha256, seconds, i.outcome.accuracy or 0.0, is_final)
        for tried, is_final in ((trials, False), (polished, True))
        for i, seconds in tried
    ]


def _search(bench: Bench, config: Config, setting: Setting) -> list[Tried]:
    """Trains what the sampler asks for, as long as there is time."""
    study = _study(config)
    ceiling = math.inf if config.ceiling is None else config.ceiling * count_macs(bench.founder)
    asked, ids, crew = asked_networks(study, bench.founder, ceiling), count(), Crew(bench.slots)
    underway: dict[int, tuple[Trial, Birth]] = {}
    found: list[Tried] = []
    while True:
        while crew.has_room and _has_time(bench, config, found):
            trial, genome = next(asked)
            birth = Birth(next(ids), 0, None, None, genome, None)
            underway[birth.id] = trial, birth
            examples = round(setting["examples"] * config.founder_examples)
            scaled = scaled_examples(examples, genome, bench.founder, config.example_exponent)
            crew.submit(order_for(birth, config, bench.folder, scaled))
        if not crew.is_busy:
            return found
        for order, outcome in crew.wait():
            trial, birth = underway.pop(order.id)
            individual = as_individual(birth, outcome)
            if individual.is_alive:
                found.append(Tried(individual, bench.clock.elapsed))
            _tell(study, trial, individual, config)


def _study(config: Config) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=config.parents, seed=config.seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.enqueue_trial(as_parameters(FOUNDERS[config.preset]))
    return study


def asked_networks(study: Study, founder: Genome, ceiling: float) -> Iterator[tuple[Trial, Genome]]:
    """Asks for one network after another that is new and has no more MACs than the ceiling."""
    from optuna.trial import TrialState

    known: set[str] = set()
    refused = 0
    while True:
        trial = study.ask()
        genome = staged_net(founder.input_shape, founder.num_classes, suggest_stages(trial))
        is_refused = genome.fingerprint in known or count_macs(genome) > ceiling
        if is_refused and refused < REFUSALS:
            refused += 1
            study.tell(trial, state=TrialState.FAIL)  # it counts in no generation
            continue
        refused = 0
        known.add(genome.fingerprint)
        yield trial, genome


def _tell(study: Study, trial: Trial, individual: Individual, config: Config) -> None:
    """Tells the objectives that evo_topo selects by: accuracy and log FLOPs, the worst below the floor."""
    from optuna.trial import TrialState

    accuracy = individual.outcome.accuracy
    if accuracy is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, Member(individual, "pareto", config.accuracy_floor, accuracy).fitness.values)


def _has_time(bench: Bench, config: Config, found: list[Tried]) -> bool:
    """Whether one more trial can be trained before the last phase begins; the rule is evo_topo's."""
    recent = [tried.individual.outcome.seconds for tried in found[-RECENT:]]
    in_flight = 2 * fmean(recent) if recent else 0.0
    return bench.clock.elapsed + in_flight + config.polish_share * bench.clock.limit < bench.clock.end


def _train_on(bench: Bench, config: Config, trials: list[Individual]) -> list[Tried]:
    """Trains those that span the front on, for as long as there is time."""
    if not trials:
        return []
    floor = config.accuracy_floor
    able = [i for i in trials if (i.outcome.accuracy or 0.0) >= floor] or trials
    judge = Judge(config, len(load_task(bench.folder / DATA).validation.targets))
    first = 1 + max(individual.id for individual in trials)
    births = [further_training(i, first + n, 1) for n, i in enumerate(judge.promising(able))]

    def scaled(examples: int, genome: Genome) -> int:
        return scaled_examples(examples, genome, bench.founder, config.example_exponent)

    def seconds_of(birth: Birth, examples: int) -> float:
        assert birth.parent is not None
        return development_seconds(birth.parent.outcome, config.recipe, scaled(examples, birth.genome))

    def seconds(examples: int) -> float:
        return makespan([seconds_of(birth, examples) for birth in births], len(bench.slots.devices))

    examples = most_that_fit(seconds, bench.clock.end - bench.clock.elapsed, config.recipe.batch_size)
    crew, found = Crew(bench.slots), []
    underway = {birth.id: birth for birth in births}
    for birth in sorted(births, key=lambda birth: -count_flops(birth.genome)):  # none is waited for alone
        order = order_for(birth, config, bench.folder, scaled(examples, birth.genome))
        # none for longer than foreseen, as in the polish of evo_topo: a slow trial would outrun the cell
        crew.submit(msgspec.structs.replace(order, seconds=seconds_of(birth, examples)))
    while crew.is_busy:
        for order, outcome in crew.wait():
            individual = as_individual(underway[order.id], outcome)
            if individual.is_alive:
                found.append(Tried(individual, bench.clock.elapsed))
    return found
