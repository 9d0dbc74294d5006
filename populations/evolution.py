"""The evolution: DEAP chooses and selects, workers develop, the lineage remembers.

Generations overlap, so that no worker waits for the slowest child of a generation: a child is bred as soon
as all but the last `ahead` children before it are judged. What it is bred from depends on its number alone,
so a run on the CPU gives the same lineage whatever the number of workers (up to `ahead`), and a resumed run
ends as the uninterrupted one would have.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from itertools import count
from statistics import fmean
from typing import NamedTuple

import msgspec
import numpy as np
from deap import tools

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.genome import Genome
from populations.breeding import (
    Birth,
    as_individual,
    breed,
    derive_seed,
    further_training,
    make_toolbox,
    order_for,
    scaled_examples,
)
from populations.calibrating import Lesson, calibration_from, lesson_of
from populations.config import Config
from populations.development import Order, outcome_path, weights_path
from populations.fitness import Member
from populations.individual import Individual
from populations.lineage import Lineage
from populations.progress import Progress, Report
from populations.selection import Judge
from populations.timing import last_phases_seconds, most_that_fit
from populations.workers import Crew, Slots

REFERENCE_ID = -1
"""Marks the files of the founder that is trained for comparison; it is no part of the lineage."""


RECENT = 20
"""Individuals whose seconds stand for those of the next: networks shrink as a run goes on."""
LESSONS = 1000
"""Children that predictions are corrected by, the latest: breeding takes no longer as a run grows."""
END_SECONDS = 5.0
"""Kept free at the end of a timed run for measuring the front on the test split."""


class EvolutionError(RuntimeError):
    """A run cannot go on; the message says why."""


class Place(NamedTuple):
    """A child to come.

    Attributes:
        id: Its number.
        generation: Its generation.
        source: The generation whose survivors it is bred from.
    """

    id: int
    generation: int
    source: int


class Evolution:
    """One run: mu + lambda over overlapping generations, with all state in the lineage.

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
        self.judge = Judge(config, num_validation)
        self.lineage = lineage
        self.crew = Crew(slots)
        self.report = report
        # Whoever may still be bred from, and the founder; the others stay in the lineage alone.
        self.individuals = {individual.id: individual for individual in lineage.individuals()}
        self._known: set[str] = set()  # fingerprints of all networks that were bred before the next child
        self.born: Counter[int] = Counter()
        self.failed = 0
        self._recent = deque([*self.individuals.values()], RECENT)
        self._last_ids: dict[int, int] = {}  # by generation, and what its children taught:
        self._lessons: dict[int, list[Lesson]] = {}
        for individual in self.individuals.values():
            self._count(
                individual, self.individuals.get(-1 if individual.parent is None else individual.parent)
            )
        self._underway: dict[int, Birth] = {}
        self._parents: list[Member] = []  # of children with this source and generation:
        self._parents_of = (-1, -1)
        self._calibration = Calibration()
        self.populations = lineage.populations()
        self.begun = time.perf_counter() - max(lineage.seconds().values(), default=0.0)
        self.toolbox = make_toolbox(config)
        self.statistics = tools.MultiStatistics(
            accuracy=tools.Statistics(lambda individual: individual.outcome.accuracy),
            flops=tools.Statistics(lambda individual: individual.flops),
        )
        for name, function in (("min", np.min), ("median", np.median), ("max", np.max)):
            self.statistics.register(name, function)
        self.logbook = tools.Logbook()
        for generation in self.populations:
            self._record(generation)
        self._judge_population()

    @property
    def generation(self) -> int:
        """The last finished generation; -1 before the founder is developed."""
        return next(reversed(self.populations), -1)

    @property
    def population(self) -> list[Individual]:
        """The survivors of the last finished generation, by id."""
        return [self.individuals[i] for i in self.populations.get(self.generation, [])]

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, earlier sittings included."""
        return time.perf_counter() - self.begun

    def front(self) -> list[Individual]:
        """The population's Pareto front, by rising FLOPs."""
        return list(self._front)

    def run(self) -> None:
        """Evolves until the generations are done or the time is up, then polishes the survivors."""
        if self.generation < 0:
            self._found()
        last = self.config.generations
        if last is None or self.generation < last:
            outcome_path(self.lineage.run_dir, REFERENCE_ID).unlink(missing_ok=True)  # lines grow longer
            self._evolve()
        if self.config.polish_examples and self.generation not in self.lineage.polished():
            self._polish()

    def _found(self) -> None:
        self._report(0, 1)
        self._submit(Birth(0, 0, None, None, self.founder, None), self.config.founder_examples)
        while self.crew.is_busy:
            self._wait(1)
        founder = self.individuals[0]
        if not founder.is_alive:
            raise EvolutionError(f"the founder could not be trained: {founder.outcome.reason}")
        self._finish_generation(0, [founder])

    def _evolve(self) -> None:
        """Breeds whenever a worker has room and the population to breed from is known."""
        waiting: deque[Birth] = deque()  # bred, and not selected upon yet
        first = self._first_id(self.generation + 1)
        self._known = {i.genome.fingerprint for i in self.individuals.values() if i.id < first}
        places = self._places()
        place = next(places, None)
        self._report(self.generation + 1, self.config.offspring)
        while place or waiting:
            while place and self.crew.has_room and place.source <= self.generation:
                waiting.append(self._breed(place))
                self._submit(waiting[-1], self.config.recipe.examples, self.config.inherited_rate)
                place = next(places, None)
            if self.crew.is_busy:
                self._wait(self.config.offspring)
            self._select_finished(waiting, is_last=place is None)

    def _places(self) -> Iterator[Place]:
        """Every child to come, as long as there are generations or there is time for it."""
        config, first = self.config, self.generation + 1
        base = max(self.lineage.polished(), default=0)
        ids = count(self._first_id(first))
        for generation in (
            count(first) if config.generations is None else range(first, config.generations + 1)
        ):
            for index in range(config.offspring):
                if not self._has_time():
                    return
                behind = max(0, math.ceil((config.ahead - index) / config.offspring))
                yield Place(next(ids), generation, max(base, generation - 1 - behind))

    def _breed(self, place: Place) -> Birth:
        """Plans a child of the population that its place names."""
        if self._parents_of != (place.source, place.generation):
            parents = [self.individuals[i] for i in self.populations[place.source]]
            self._parents = self.judge.members(parents, place.generation)
            self._parents_of = (place.source, place.generation)
            self._calibration = calibration_from(self._lessons_until(place.source))
        ceiling = math.inf if self.config.ceiling is None else self.config.ceiling * count_flops(self.founder)
        members, learned = self._parents, self._calibration
        birth = breed(
            self.config, self.toolbox, members, ceiling, place.id, place.generation, learned, self._known
        )
        self._known.add(birth.genome.fingerprint)
        return birth

    def _select_finished(self, waiting: deque[Birth], is_last: bool) -> None:
        """Selects upon every generation, in turn, whose children are all developed."""
        while waiting:
            generation = waiting[0].generation
            births = [birth for birth in waiting if birth.generation == generation]
            is_whole = is_last or len(births) == self.config.offspring
            if not is_whole or any(birth.id not in self.individuals for birth in births):
                return
            for _ in births:
                waiting.popleft()
            self._select(generation, births)

    def _polish(self) -> None:
        """One more generation, in which every promising survivor has a child that trains on for longer.

        The founder for comparison trains beside them. The most costly come first: none is waited for alone.
        """
        generation, examples = self.generation + 1, self._polish_examples()
        phase, ids = "polishing the survivors", count(self._first_id(generation))
        births = [further_training(parent, next(ids), generation) for parent in self._promising]
        self._report(generation, len(births), phase)
        if self.config.compare and not (reference := self.reference_order(examples)).read_outcome():
            self.crew.submit(reference)
        for birth in sorted(births, key=lambda birth: -count_flops(birth.genome)):
            self._submit(birth, examples)
        while self.crew.is_busy:
            self._wait(len(births), phase)
        self._select(generation, births, is_polish=True)

    def _first_id(self, generation: int) -> int:
        """The first id of a generation, whether some of its children are developed already or not."""
        return 1 + max(last for born, last in self._last_ids.items() if born < generation)

    def _submit(self, birth: Birth, examples: int, rate: float = 1.0) -> None:
        """Has a birth developed, unless the lineage holds it already."""
        stored = self.individuals.get(birth.id)
        if stored is None:
            self._underway[birth.id] = birth
            scaled = self._scaled(examples, birth.genome)
            self.crew.submit(order_for(birth, self.config, self.lineage.run_dir, scaled, rate))
            return
        parent = None if birth.parent is None else birth.parent.id
        if (stored.parent, stored.edit) != (parent, birth.edit):
            raise EvolutionError(
                f"the lineage holds another individual {birth.id} than this configuration breeds; if the run "
                "was stopped while survivors were polished, finish it as it was before extending it"
            )

    def _wait(self, children: int, phase: str | None = None) -> None:
        """Stores whoever is developed next; reports on the generation, which has so many children."""
        for order, outcome in self.crew.wait():
            if order.id == REFERENCE_ID:  # its outcome stays on disk
                continue
            birth = self._underway.pop(order.id)
            individual = as_individual(birth, outcome, self.config.inherit)
            self.lineage.add(individual)
            self.individuals[individual.id] = individual
            self._recent.append(individual)
            self._count(individual, birth.parent)
            outcome_path(self.lineage.run_dir, individual.id).unlink(missing_ok=True)
            self._report(self.generation + 1, children, phase)

    def _count(self, individual: Individual, parent: Individual | None) -> None:
        """Keeps of a child what is needed of it when it is gone."""
        generation = individual.generation
        self.born[generation] += 1
        self.failed += not individual.is_alive
        self._last_ids[generation] = max(individual.id, self._last_ids.get(generation, 0))
        if lesson := lesson_of(individual, parent):
            self._lessons.setdefault(generation, []).append(lesson)

    def _lessons_until(self, generation: int) -> list[Lesson]:
        """What the latest generations up to this one taught, as far back as it takes to have enough."""
        found: list[Lesson] = []
        while generation > 0 and len(found) < LESSONS:
            found += self._lessons.get(generation, [])
            generation -= 1
        return found

    def _select(self, generation: int, births: list[Birth], is_polish: bool = False) -> None:
        able = [child for b in births if (child := self.individuals[b.id]).is_alive]
        survivors = self.judge.select([*self.population, *able], generation, self.toolbox)
        if is_polish:  # those on the front by measured accuracy may not be so by what their losses promise
            others = [i for i in survivors if i.generation != generation]
            survivors = [*able, *others][: self.config.parents]
        self._finish_generation(generation, survivors, is_polish)

    def _finish_generation(
        self, generation: int, survivors: list[Individual], is_polish: bool = False
    ) -> None:
        """Stores who survived, then removes the weights that nobody will be bred from any more."""
        ids = sorted({individual.id for individual in survivors})
        self.lineage.set_population(generation, ids, self.elapsed, is_polish)
        self.populations[generation] = ids
        self._record(generation)
        reach = 1 + math.ceil(self.config.ahead / self.config.offspring)
        sources = range(generation if is_polish else generation - reach, generation + 1)
        kept = {i for source in sources for i in self.populations.get(source, [])}
        for path in weights_path(self.lineage.run_dir, 0).parent.glob("*.safetensors"):
            owner = self.individuals.get(int(path.stem)) if path.stem.isdigit() else None
            if owner is not None and owner.generation <= generation and owner.id not in kept:
                path.unlink()
        gone = [i for i in self.individuals.values() if i.generation <= generation and i.id not in kept | {0}]
        for individual in gone:
            del self.individuals[individual.id]
        self._judge_population()

    def _judge_population(self) -> None:
        """Finds who is on the front and who spans it: once, because every report and every deadline asks.

        Once survivors are polished, the others stand back: a front of both would compare unlike things.
        """
        population = self.population
        phases = self.lineage.polished()
        polished = [i for i in population if i.generation in phases]
        self._front = self.judge.front(polished or population) if population else []
        others = [i for i in population if i.genome != self.founder]  # which has a test of its own
        able = others if self.config.compare and others else population
        self._promising = self.judge.promising(able) if able else []

    def _record(self, generation: int) -> None:
        """Adds a finished generation to DEAP's logbook."""
        survivors = [self.individuals[i] for i in self.populations[generation]]
        self.logbook.record(
            generation=generation, children=self.born[generation], **self.statistics.compile(survivors)
        )

    def reference_order(self, polish_examples: int = 0) -> Order:
        """The founder for comparison: trained in one go, as long as the longest line of any survivor.

        Args:
            polish_examples: Training examples that the survivors are still going to see, before scaling.
        """
        birth = Birth(REFERENCE_ID, 0, None, None, self.founder, None)
        trained = max(i.total_examples for i in self.population)
        polished = max(i.total_examples + self._scaled(polish_examples, i.genome) for i in self._promising)
        examples = max(trained, polished)
        order = order_for(birth, self.config, self.lineage.run_dir, examples)
        seed = derive_seed(self.config.seed, "child", 0)  # it begins with the founder's weights
        # nobody breeds from it, so the price list that costs nothing will do
        return msgspec.structs.replace(order, seed=seed, criterion="random")

    def _scaled(self, examples: int, genome: Genome) -> int:
        return scaled_examples(examples, genome, self.founder, self.config.example_exponent)

    def _polish_examples(self) -> int:
        """Training examples of a survivor in the polish, before scaling: in a timed run, what time allows."""
        least = self.config.polish_examples
        if self.config.minutes is None:
            return least
        left = 60 * self.config.minutes - END_SECONDS - self.elapsed
        return most_that_fit(self._last_seconds, left, least)

    def _reserve(self) -> float:
        """Seconds that are kept for the last phases."""
        least = self._last_seconds(self.config.polish_examples)
        if self.config.minutes is None or not self.config.polish_examples:
            return least
        return max(least, self.config.polish_share * 60 * self.config.minutes)

    def _last_seconds(self, examples: int) -> float:
        """Seconds that the last phases take with so many examples of polish, before scaling."""
        slots = len(self.crew.slots.devices)
        reference = self.reference_order(examples).recipe.examples if self.config.compare else 0
        polish = partial(self._scaled, examples)
        return last_phases_seconds(self._promising, self.individuals[0], polish, reference, slots)

    def _has_time(self) -> bool:
        """Whether one more child can be developed, those in flight be waited for, and the run be ended."""
        if self.config.minutes is None:
            return True
        in_flight = 2 * fmean(individual.outcome.seconds for individual in self._recent)
        return self.elapsed + in_flight + self._reserve() + END_SECONDS < 60 * self.config.minutes

    def _remaining(self, generation: int, children: int) -> float | None:
        """Seconds to the end of the run, as far as can be told."""
        config, slots = self.config, len(self.crew.slots.devices)
        if config.minutes is not None:
            return max(0.0, 60 * config.minutes - self.elapsed)
        if config.generations is None or self.generation < 0 or self.born.total() <= slots:
            return None
        if generation > config.generations:  # the polish
            return self._reserve() * (1 - self.born[generation] / children)
        left = (config.generations - self.generation) * config.offspring - self.born[generation]
        child = fmean(individual.outcome.seconds for individual in self._recent)
        return max(0, left) * child / slots + self._reserve()

    def report_phase(self, phase: str) -> None:
        """Reports what is being done after the last generation."""
        self._report(self.generation, max(1, self.born[self.generation]), phase)

    def _report(self, generation: int, children: int, phase: str | None = None) -> None:
        front = [(i.id, i.outcome.accuracy or 0.0, i.flops) for i in self._front]
        self.report(
            Progress(
                phase=phase or ("evolving" if generation else "training the founder"),
                generation=generation,
                generations=self.config.generations,
                children_done=self.born[generation],
                children=children,
                failed=self.failed,
                best_accuracy=max((accuracy for _, accuracy, _ in front), default=0.0),
                front=front,
                elapsed=self.elapsed,
                remaining=self._remaining(generation, children),
            )
        )
