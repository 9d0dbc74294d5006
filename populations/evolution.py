"""The evolution: DEAP chooses and selects, workers develop, the lineage remembers.

Everything random is drawn from seeds derived from (run seed, generation) and (run seed, child id), so a
run on the CPU gives the same lineage whatever the number of workers, and a resumed run ends as the
uninterrupted one would have.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

import msgspec
import numpy as np
from deap import base, tools

from evo_topo.edits import AnyEdit, EditError
from evo_topo.genome import Genome
from evo_topo.mutation import propose
from populations.config import Config
from populations.development import Order, outcome_path, weights_path
from populations.fitness import Member, fold_accuracy, pareto_front
from populations.individual import Individual, Outcome
from populations.lineage import Lineage
from populations.workers import Slots, develop_all

REFERENCE_ID = -1
"""Marks the files of the founder that is trained for comparison; it is no part of the lineage."""
FOLD = 0.8
"""Share of the validation examples that one generation is selected on."""


class EvolutionError(RuntimeError):
    """A run cannot go on; the message says why."""


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        phase: What is being done, in words.
        generation: The generation under way.
        generations: How many there will be; None when time decides.
        children_done: Children of this generation that are developed.
        children: Children of this generation.
        failed: Individuals that failed so far.
        best_accuracy: Best validation accuracy in the population.
        front: (id, validation accuracy, FLOPs) of the population's front, by rising FLOPs.
        elapsed: Seconds since the run began, earlier sittings included.
        remaining: Seconds that it will still take, as far as can be told.
    """

    phase: str
    generation: int
    generations: int | None
    children_done: int
    children: int
    failed: int
    best_accuracy: float
    front: list[tuple[int, float, int]]
    elapsed: float
    remaining: float | None


Report = Callable[[Progress], None]


class Birth(NamedTuple):
    """A child that is planned: what is known of it before it is developed."""

    id: int
    parent: Individual | None
    edit: AnyEdit | None
    genome: Genome
    predicted_loss_change: float | None


def derive_seed(*parts: object) -> int:
    """A seed of 32 bits for what the parts name; the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big")


class Evolution:
    """One run: mu + lambda over generations, with all state in the lineage.

    Args:
        config: How to evolve.
        founder: Genome to start from.
        num_validation: Number of validation examples.
        lineage: Store of the run, possibly with earlier generations.
        slots: Where children are developed.
        report: Called after every developed child.
    """

    def __init__(
        self,
        config: Config,
        founder: Genome,
        num_validation: int,
        lineage: Lineage,
        slots: Slots,
        report: Report,
    ) -> None:
        self.config = config
        self.founder = founder
        self.num_validation = num_validation
        self.lineage = lineage
        self.slots = slots
        self.report = report
        self.individuals = {individual.id: individual for individual in lineage.individuals()}
        self.populations = lineage.populations()
        self.begun = time.perf_counter() - max(lineage.seconds().values(), default=0.0)
        self.toolbox = self._toolbox()
        self.statistics = tools.MultiStatistics(
            accuracy=tools.Statistics(lambda individual: individual.outcome.accuracy),
            flops=tools.Statistics(lambda individual: individual.flops),
        )
        for name, function in (("min", np.min), ("median", np.median), ("max", np.max)):
            self.statistics.register(name, function)
        self.logbook = tools.Logbook()
        for generation in self.populations:
            self._record(generation)

    def _toolbox(self) -> base.Toolbox:
        config, toolbox = self.config, base.Toolbox()
        toolbox.register("mutate", propose, growth=config.growth)
        if config.objective == "pareto":
            toolbox.register("choose", tools.selRandom, k=1)
            toolbox.register("select", tools.selNSGA2, k=config.parents)
        else:
            toolbox.register("choose", tools.selTournament, k=1, tournsize=2)
            toolbox.register("select", tools.selBest, k=config.parents)
        return toolbox

    @property
    def generation(self) -> int:
        """The last finished generation; -1 before the founder is developed."""
        return max(self.populations, default=-1)

    @property
    def population(self) -> list[Individual]:
        """The survivors of the last finished generation, by id."""
        return [self.individuals[i] for i in self.populations.get(self.generation, [])]

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, earlier sittings included."""
        return time.perf_counter() - self.begun

    def front(self) -> list[Individual]:
        """The population's Pareto front on all validation examples, by rising FLOPs."""
        floor = self.config.accuracy_floor
        able = [i for i in self.population if self._accuracy(i) >= floor] or self.population
        return pareto_front(able, self._accuracy, lambda individual: individual.flops)

    def run(self) -> None:
        """Evolves until the generations are done or the time is up, then polishes the survivors."""
        if self.generation < 0:
            self._found()
        last = self.config.generations
        while (last is None or self.generation < last) and self._has_time():
            self._next_generation()
        if self.config.polish_examples and self.generation not in self.lineage.polished():
            self._polish()

    def _found(self) -> None:
        self._develop(0, [Birth(0, None, None, self.founder, None)], self.config.founder_examples)
        founder = self.individuals[0]
        if not founder.is_alive:
            raise EvolutionError(f"the founder could not be trained: {founder.outcome.reason}")
        self._finish_generation(0, [founder])

    def _next_generation(self) -> None:
        generation = self.generation + 1
        outcome_path(self.lineage.run_dir, REFERENCE_ID).unlink(missing_ok=True)  # lines grow longer
        parents = self._members(self.population, generation)
        first = self._next_id(generation)
        births = [self._breed(parents, first + i) for i in range(self.config.offspring)]
        self._develop(generation, births, self.config.recipe.examples)
        self._select(generation, births)

    def _polish(self) -> None:
        """One more generation, in which every survivor has a child that trains on for longer.

        The founder for comparison trains beside them: it takes longest, so it starts first.
        """
        generation = self.generation + 1
        first = self._next_id(generation)
        births = [Birth(first + i, p, None, p.genome, None) for i, p in enumerate(self.population)]
        examples = self.config.polish_examples
        reference = self.reference_order(examples)
        beside = [] if reference.read_outcome() else [reference]
        self._develop(generation, births, examples, "polishing the survivors", beside)
        self._select(generation, births, is_polish=True)

    def _next_id(self, generation: int) -> int:
        """The first id of a generation, whether some of its children are developed already or not."""
        return 1 + max(i.id for i in self.individuals.values() if i.generation < generation)

    def _select(self, generation: int, births: list[Birth], is_polish: bool = False) -> None:
        able = [child for b in births if (child := self.individuals[b.id]).is_alive]
        pool = self._members([*self.population, *able], generation)
        with _global_random(derive_seed(self.config.seed, "select", generation)):
            survivors = self.toolbox.select(pool)
        self._finish_generation(generation, [member.individual for member in survivors], is_polish)

    def _members(self, individuals: list[Individual], generation: int) -> list[Member]:
        """Individuals with their fitness on this generation's draw of the validation examples.

        Parents and children are compared on the same examples, and survivors are measured anew, on
        another draw, each generation: who was only lucky once does not stay.
        """
        rng = random.Random(derive_seed(self.config.seed, "fold", generation))
        size = max(1, round(FOLD * self.num_validation))
        fold = sum(1 << i for i in rng.sample(range(self.num_validation), size))
        objective, floor = self.config.objective, self.config.accuracy_floor
        return [Member(i, objective, floor, self.num_validation, fold) for i in individuals]

    def _breed(self, parents: list[Member], id: int) -> Birth:  # noqa: A002
        """Plans a child: a parent, and a mutation of it or more training."""
        seed = derive_seed(self.config.seed, "breed", id)
        rng = random.Random(seed)
        with _global_random(seed):
            parent: Individual = self.toolbox.choose(parents)[0].individual
        prices = parent.outcome.prices
        if prices is None or rng.random() < self.config.train_on:
            return Birth(id, parent, None, parent.genome, None)
        try:
            proposal = self.toolbox.mutate(parent.genome, prices, rng)
        except EditError:  # no edit applies: it can still train on
            return Birth(id, parent, None, parent.genome, None)
        predicted = proposal.predicted_loss_change if prices.criterion == "obd" else None
        return Birth(id, parent, proposal.edit, proposal.genome, predicted)

    def _develop(
        self,
        generation: int,
        births: list[Birth],
        examples: int,
        phase: str | None = None,
        beside: Sequence[Order] = (),
    ) -> None:
        """Has workers develop those births that the lineage does not hold yet; stores each at once.

        Orders `beside` them are developed as well; their outcomes stay on disk.
        """
        for birth in births:
            self._check_stored(birth)
        births_by_id = {birth.id: birth for birth in births if birth.id not in self.individuals}
        orders = [self._order(birth, examples) for birth in births_by_id.values()]
        done = len(births) - len(orders)
        self._report(generation, done, len(births), phase)
        with closing(develop_all([*beside, *orders], self.slots)) as results:
            for order, outcome in results:
                if order.id not in births_by_id:
                    continue
                individual = _as_individual(births_by_id[order.id], generation, outcome)
                self.lineage.add(individual)
                self.individuals[individual.id] = individual
                outcome_path(self.lineage.run_dir, individual.id).unlink(missing_ok=True)
                done += 1
                self._report(generation, done, len(births), phase)

    def _check_stored(self, birth: Birth) -> None:
        """Checks that a child developed before the run was stopped is the one that is planned now."""
        stored = self.individuals.get(birth.id)
        parent = None if birth.parent is None else birth.parent.id
        if stored is not None and (stored.parent, stored.edit) != (parent, birth.edit):
            raise EvolutionError(
                f"the lineage holds another individual {birth.id} than this configuration breeds; if the run "
                "was stopped while survivors were polished, finish it as it was before extending it"
            )

    def _order(self, birth: Birth, examples: int) -> Order:
        """What a worker needs to develop a birth."""
        parent, config = birth.parent, self.config
        return Order(
            id=birth.id,
            run_dir=str(self.lineage.run_dir),
            genome=(parent or birth).genome.to_json(),
            parent=None if parent is None else parent.id,
            parent_sha256="" if parent is None else parent.outcome.weights_sha256,
            edit=None if birth.edit is None else birth.edit.to_json(),
            seed=derive_seed(config.seed, "child", birth.id),
            recipe=dataclasses.replace(config.recipe, examples=examples),
            criterion=config.criterion,
            probe_examples=config.probe_examples,
        )

    def _finish_generation(
        self, generation: int, survivors: list[Individual], is_polish: bool = False
    ) -> None:
        """Stores who survived, then removes the weights of all others."""
        ids = sorted({individual.id for individual in survivors})
        self.lineage.set_population(generation, ids, self.elapsed, is_polish)
        self.populations[generation] = ids
        for individual in self.individuals.values():
            if individual.id not in ids:
                weights_path(self.lineage.run_dir, individual.id).unlink(missing_ok=True)
        self._record(generation)

    def _record(self, generation: int) -> None:
        """Adds a finished generation to DEAP's logbook."""
        born = [i for i in self.individuals.values() if i.generation == generation]
        survivors = [self.individuals[i] for i in self.populations[generation]]
        self.logbook.record(
            generation=generation,
            children=len(born),
            failed=sum(not individual.is_alive for individual in born),
            **self.statistics.compile(survivors),
        )

    def report_phase(self, phase: str) -> None:
        """Reports what is being done after the last generation."""
        self._report(self.generation, 1, 1, phase)

    def reference_order(self, further: int = 0) -> Order:
        """The founder for comparison: trained in one go, as long as the longest line of any survivor.

        Args:
            further: Training examples that the survivors are still going to see.
        """
        examples = further + max(individual.total_examples for individual in self.population)
        birth = Birth(REFERENCE_ID, None, None, self.founder, None)
        order = self._order(birth, examples)
        seed = derive_seed(self.config.seed, "child", 0)  # it begins with the founder's weights
        # nobody breeds from it, so the price list that costs nothing will do
        return msgspec.structs.replace(order, seed=seed, criterion="random")

    def _reserve(self) -> float:
        """Seconds that the last phases take: polishing, and training the founder as long as the front."""

        def pace(outcome: Outcome) -> float:
            return outcome.seconds / max(outcome.examples, 1)

        examples, slots = self.config.polish_examples, len(self.slots.devices)
        polish = sum(pace(individual.outcome) for individual in self.population) * examples
        founder = pace(self.individuals[0].outcome) * self.reference_order(examples).recipe.examples
        return max(founder, (polish + founder) / slots) + 5

    def _mean_generation(self) -> float:
        seconds = self.lineage.seconds()
        return (seconds[self.generation] - seconds[0]) / max(self.generation, 1)

    def _has_time(self) -> bool:
        minutes = self.config.minutes
        if minutes is None:
            return True
        return self.elapsed + self._mean_generation() + self._reserve() < 60 * minutes

    def _accuracy(self, individual: Individual) -> float:
        return fold_accuracy(individual, self.num_validation)

    def _report(self, generation: int, done: int, children: int, phase: str | None = None) -> None:
        config = self.config
        remaining: float | None = None
        if config.minutes is not None:
            remaining = max(0.0, 60 * config.minutes - self.elapsed)
        elif config.generations is not None and self.generation >= 1:
            left = config.generations - self.generation - done / children
            remaining = max(0.0, left * self._mean_generation()) + self._reserve()
        front = [(i.id, self._accuracy(i), i.flops) for i in self.front()] if self.population else []
        self.report(
            Progress(
                phase=phase or ("evolving" if generation else "training the founder"),
                generation=generation,
                generations=config.generations,
                children_done=done,
                children=children,
                failed=sum(not individual.is_alive for individual in self.individuals.values()),
                best_accuracy=max((accuracy for _, accuracy, _ in front), default=0.0),
                front=front,
                elapsed=self.elapsed,
                remaining=remaining,
            )
        )


def _as_individual(birth: Birth, generation: int, outcome: Outcome) -> Individual:
    parent = birth.parent
    return Individual(
        id=birth.id,
        parent=None if parent is None else parent.id,
        generation=generation,
        edit=birth.edit,
        genome=birth.genome,
        predicted_loss_change=birth.predicted_loss_change,
        inherited_examples=0 if parent is None else parent.total_examples,
        inherited_flops=0 if parent is None else parent.total_flops,
        inherited_seconds=0.0 if parent is None else parent.total_seconds,
        outcome=outcome,
    )


@contextmanager
def _global_random(seed: int) -> Iterator[None]:
    """DEAP draws from the module `random`: seeded here, and put back as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
