"""The evolution: DEAP chooses and selects, workers develop, the lineage remembers.

Generations overlap, so that no worker waits for the slowest child of a generation: a child is bred as soon
as all but the last `ahead` children before it are judged. What it is bred from depends on its number alone,
so a run on the CPU gives the same lineage whatever the number of workers (up to `ahead`), and a resumed run
ends as the uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple

import msgspec

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.genome import Genome
from populations.births import Birth, as_individual, further_training, order_for
from populations.breeding import breed
from populations.calibrating import calibration_from, outlook_from
from populations.config import Config
from populations.fitness import Member
from populations.generations import Generations
from populations.hurdles import Outlook, hurdle_for
from populations.lineage import Lineage
from populations.memory import Memory
from populations.orders import Order, Rival, Teacher, outcome_path
from populations.polish import PolishPlan
from populations.pricing import Pricing
from populations.progress import Progress, Report
from populations.schedule import Schedule
from populations.seeds import derive_seed
from populations.workers import Crew, Slots

REFERENCE_ID = -1
"""Marks the files of the founder that is trained for comparison; it is no part of the lineage."""


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
        self.lineage = lineage
        self.crew = Crew(slots)
        self.report = report
        self.memory = Memory(lineage.individuals())
        self.generations = Generations(config, founder, num_validation, lineage, self.memory)
        spent = max(lineage.seconds().values(), default=0.0)
        self.schedule = Schedule(config, founder, self.memory, len(slots.devices), spent)
        self.pricing = Pricing(config, lineage, self.memory)
        self._underway: dict[int, Birth] = {}
        self._parents: list[Member] = []  # of children with this source and generation:
        self._parents_of = (-1, -1)
        self._calibration = Calibration()
        self._outlook: Outlook | None = None

    def run(self) -> None:
        """Evolves until the generations are done or the time is up, then polishes the survivors."""
        if self.generations.last < 0:
            self._found()
        last = self.config.generations
        if last is None or self.generations.last < last:
            outcome_path(self.lineage.run_dir, REFERENCE_ID).unlink(missing_ok=True)  # lines grow longer
            self._evolve()
        if self.config.polish_examples and self.generations.last not in self.lineage.polished():
            self._polish()

    def _found(self) -> None:
        self._report(0, 1)
        birth, seconds = Birth(0, 0, None, None, self.founder, None), self.schedule.founder_seconds
        self._submit(birth, lambda _: self.config.founder_examples, seconds=seconds)
        while self.crew.is_busy:
            self._wait(1)
        founder = self.memory.individuals[0]
        if not founder.is_alive:
            raise EvolutionError(f"the founder could not be trained: {founder.outcome.reason}")
        self.generations.finish(0, [founder], self.schedule.elapsed)

    def _evolve(self) -> None:
        """Breeds whenever a worker has room and the population to breed from is known and priced."""
        waiting: deque[Birth] = deque()  # bred, and not selected upon yet
        child_examples = partial(self.schedule.scaled, self.config.recipe.examples)
        self.memory.know_all_before(self.generations.last + 1)
        places = self._places()
        place = next(places, None)
        self._report(self.generations.last + 1, self.config.offspring)
        while place or waiting or self.crew.is_busy:
            while place and self._is_ready(place.source) and self.crew.has_room:
                waiting.append(self._breed(place))
                self._submit(waiting[-1], child_examples, self.config.inherited_rate)
                place = next(places, None)
            if self.crew.is_busy:
                self._wait(self.config.offspring)
            self._select_finished(waiting, is_last=place is None)

    def _places(self) -> Iterator[Place]:
        """Every child to come, as long as there are generations or there is time for it."""
        config, first = self.config, self.generations.last + 1
        base = max(self.lineage.polished(), default=0)
        ids = count(self.memory.first_id(first))
        for generation in (
            count(first) if config.generations is None else range(first, config.generations + 1)
        ):
            for index in range(config.offspring):
                if not self.schedule.has_time(self.generations.finalists):
                    return
                behind = max(0, math.ceil((config.ahead - index) / config.offspring))
                yield Place(next(ids), generation, max(base, generation - 1 - behind))

    def _is_ready(self, source: int) -> bool:
        """Whether a generation can be bred from: it is finished, and its survivors are priced, or will be."""
        if source > self.generations.last:
            return False
        population = self.generations.population_of(source)
        self.pricing.ask(population, self.crew)
        return self.pricing.is_done(population)

    def _breed(self, place: Place) -> Birth:
        """Plans a child of the population that its place names."""
        if self._parents_of != (place.source, place.generation):
            parents = self.generations.population_of(place.source)
            self._parents = self.generations.judge.parents(parents, place.generation)
            self._parents_of = (place.source, place.generation)
            lessons = self.memory.lessons_until(place.source)
            self._calibration, self._outlook = calibration_from(lessons), outlook_from(lessons)
        ceiling = math.inf if self.config.ceiling is None else self.config.ceiling * count_flops(self.founder)
        toolbox, members = self.generations.toolbox, self._parents
        learned, known = self._calibration, self.memory.known
        birth = breed(self.config, toolbox, members, ceiling, place.id, place.generation, learned, known)
        known |= {option.genome.fingerprint for option in birth.options}
        return birth._replace(hurdle=self._hurdle_for(birth))

    def _hurdle_for(self, birth: Birth) -> float | None:
        """The most that its halfway loss may be; only mutations that compete for the front have a hurdle."""
        if birth.edit is None or self.config.objective != "pareto":
            return None
        flops = [count_flops(option.genome) for option in birth.options]
        return hurdle_for(flops, [member.individual for member in self._parents], self._outlook)

    def _select_finished(self, waiting: deque[Birth], is_last: bool) -> None:
        """Selects upon every generation, in turn, whose children are all developed."""
        while waiting:
            generation = waiting[0].generation
            births = [birth for birth in waiting if birth.generation == generation]
            is_whole = is_last or len(births) == self.config.offspring
            if not is_whole or any(birth.id not in self.memory.individuals for birth in births):
                return
            for _ in births:
                waiting.popleft()
            self.generations.select(generation, [birth.id for birth in births], self.schedule.elapsed)

    def _polish(self) -> None:
        """One more generation, in which every promising survivor has a child that trains on for longer.

        The founder for comparison trains beside them. Those that take longest come first: none is waited for
        alone.
        """
        generation, phase = self.generations.last + 1, "polishing the survivors"
        finalists, ids = self.generations.finalists, count(self.memory.first_id(generation))
        plan, seconds = PolishPlan(self.schedule, finalists), self.schedule.polish_seconds
        births = {
            parent.id: further_training(parent, next(ids), generation) for parent in finalists.promising
        }
        waiting = sorted(finalists.promising, key=lambda parent: -seconds(parent, plan.first_examples))
        self._report(generation, len(births), phase)
        teacher = self._teacher() if self.config.distill else None
        if self.config.compare and not (order := self.reference_order(plan.first_examples)).read_outcome():
            self.crew.submit(order)
            plan.begin(order.id, self.schedule.reference_seconds(order.recipe.examples))
        while waiting or self.crew.is_busy:
            while waiting and self.crew.has_free_slot:
                examples, parent = plan.examples(waiting), waiting.pop(0)
                birth = births[parent.id]
                scaled = partial(self.schedule.scaled_polish, examples)
                self._submit(birth, scaled, teacher=teacher, seconds=self.schedule.left)
                if birth.id in self._underway:  # else the lineage holds it already
                    plan.begin(birth.id, seconds(parent, examples))
            if self.crew.is_busy:
                plan.finish(self._wait(len(births), phase))
        children = [birth.id for birth in births.values()]
        self.generations.select(generation, children, self.schedule.elapsed, is_polish=True)

    def _teacher(self) -> Teacher:
        """The most accurate survivor, for those who are polished to learn from, and itself among them."""
        best = self.generations.front[-1]
        return Teacher(best.id, best.genome.to_json(), best.outcome.weights_sha256, self.config.distill)

    def _submit(
        self,
        birth: Birth,
        examples: Callable[[Genome], int],
        rate: float = 1.0,
        teacher: Teacher | None = None,
        seconds: float = math.inf,
    ) -> None:
        """Has a birth developed on so many examples, unless the lineage holds it already."""
        stored = self.memory.individuals.get(birth.id)
        if stored is None:
            self._underway[birth.id] = birth
            order = order_for(birth, self.config, self.lineage.run_dir, examples(birth.genome), rate, teacher)
            rivals = [Rival(rival.edit.to_json(), examples(rival.genome)) for rival in birth.rivals]
            self.crew.submit(msgspec.structs.replace(order, rivals=tuple(rivals), seconds=seconds))
            return
        parent = None if birth.parent is None else birth.parent.id
        if stored.parent != parent or stored.edit not in [option.edit for option in birth.options]:
            raise EvolutionError(
                f"the lineage holds another individual {birth.id} than this configuration breeds; if the run "
                "was stopped while survivors were polished, finish it as it was before extending it"
            )

    def _wait(self, children: int, phase: str | None = None) -> list[int]:
        """Stores whoever is developed next; reports on the generation, which has so many children.

        Returns:
            The ids of the orders that are done.
        """
        done = []
        for order, outcome in self.crew.wait():
            done.append(order.id)
            if order.id == REFERENCE_ID:  # its outcome stays on disk
                continue
            if order.criterion is not None:
                self.pricing.take(order.id, outcome)
                continue
            birth = self._underway.pop(order.id)
            individual = as_individual(birth, outcome, self.config.inherit)
            self.lineage.add(individual)
            self.memory.add(individual, birth.parent)
            outcome_path(self.lineage.run_dir, individual.id).unlink(missing_ok=True)
            self._report(self.generations.last + 1, children, phase)
        return done

    def reference_order(self, polish_examples: int = 0) -> Order:
        """The founder for comparison: trained in one go, as long as the longest line of any survivor.

        Args:
            polish_examples: Training examples that the survivors are still going to see, before scaling.
        """
        birth = Birth(REFERENCE_ID, 0, None, None, self.founder, None)
        examples = self.schedule.reference_examples(self.generations.finalists, polish_examples)
        order = order_for(birth, self.config, self.lineage.run_dir, examples)
        seed = derive_seed(self.config.seed, "child", 0)  # it begins with the founder's weights
        return msgspec.structs.replace(order, seed=seed)

    def report_phase(self, phase: str) -> None:
        """Reports what is being done after the last generation."""
        self._report(self.generations.last, max(1, self.memory.born[self.generations.last]), phase)

    def _report(self, generation: int, children: int, phase: str | None = None) -> None:
        front = [(i.id, i.outcome.accuracy or 0.0, i.flops) for i in self.generations.front]
        done, finalists = self.generations.last, self.generations.finalists
        self.report(
            Progress(
                phase=phase or ("evolving" if generation else "training the founder"),
                generation=generation,
                generations=self.config.generations,
                children_done=self.memory.born[generation],
                children=children,
                failed=self.memory.failed,
                stopped=self.memory.stopped,
                best_accuracy=max((accuracy for _, accuracy, _ in front), default=0.0),
                front=front,
                elapsed=self.schedule.elapsed,
                remaining=self.schedule.remaining(finalists, done, generation, children),
            )
        )
