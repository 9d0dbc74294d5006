"""What a driver remembers of a lineage: whoever may still be bred from, and what the others taught."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from populations.calibrating import Lesson, lesson_of
from populations.individual import Individual
from populations.records import LineageError

RECENT = 20
"""Individuals whose seconds stand for those of the next: networks shrink as a run goes on."""
LESSONS = 1000
"""Children that predictions are corrected by, the latest: breeding takes no longer as a run grows."""


class Memory:
    """Individuals by id, and what is needed of those that are gone.

    Args:
        individuals: Those of the lineage so far, parents before children.

    Attributes:
        individuals: Whoever may still be bred from, and the founder; the others are in the lineage alone.
        born: Individuals by generation.
        failed: Individuals that failed.
        stopped: Individuals that were stopped at half-time.
        recent: The latest individuals.
        known: Fingerprints of all networks that were bred before the next child.
    """

    def __init__(self, individuals: Iterable[Individual]) -> None:
        self.individuals: dict[int, Individual] = {}
        self.born: Counter[int] = Counter()
        self.failed = self.stopped = 0
        self.recent: deque[Individual] = deque(maxlen=RECENT)
        self.known: set[str] = set()
        self._last_ids: dict[int, int] = {}  # by generation, and what its children taught:
        self._lessons: dict[int, list[Lesson]] = {}
        for individual in individuals:
            parent = individual.parent
            if parent is not None and parent not in self.individuals:
                raise LineageError(f"individual {individual.id} of the lineage has lost its parent {parent}")
            self.add(individual, None if parent is None else self.individuals[parent])

    def add(self, individual: Individual, parent: Individual | None) -> None:
        """Remembers an individual."""
        generation = individual.generation
        self.individuals[individual.id] = individual
        self.recent.append(individual)
        self.born[generation] += 1
        self.failed += individual.is_failed
        self.stopped += individual.outcome.status == "stopped"
        self._last_ids[generation] = max(individual.id, self._last_ids.get(generation, 0))
        if lesson := lesson_of(individual, parent):
            self._lessons.setdefault(generation, []).append(lesson)

    def drop_from(self, generation: int) -> None:
        """Forgets a generation and all later ones, as if they had never been bred."""
        for id_ in [i.id for i in self.individuals.values() if i.generation >= generation]:
            del self.individuals[id_]
        for by_generation in (self.born, self._last_ids, self._lessons):
            for late in [number for number in by_generation if number >= generation]:
                del by_generation[late]

    def update(self, individual: Individual) -> None:
        """Remembers more of an individual that is remembered."""
        self.individuals[individual.id] = individual

    def first_id(self, generation: int) -> int:
        """The first id of a generation, whether some of its children are developed already or not."""
        return 1 + max(last for born, last in self._last_ids.items() if born < generation)

    def know_all_before(self, generation: int) -> None:
        """Takes the networks of all earlier generations for known, and no others."""
        first = self.first_id(generation)
        earlier = [i for i in self.individuals.values() if i.id < first]
        self.known = {i.genome.fingerprint for i in earlier}
        self.known |= {screened.fingerprint for i in earlier for screened in i.outcome.screened}

    def lessons_until(self, generation: int, first: int = 1) -> list[Lesson]:
        """What the latest generations up to this one taught, as far back as it takes to have enough.

        Args:
            generation: The latest.
            first: The earliest.
        """
        found: list[Lesson] = []
        while generation >= first and len(found) < LESSONS:
            found += self._lessons.get(generation, [])
            generation -= 1
        return found

    def forget(self, generation: int, kept: set[int]) -> None:
        """Forgets whoever was born until this generation, but those to keep and the founder."""
        everyone = self.individuals.values()
        for i in [i.id for i in everyone if i.generation <= generation and i.id not in kept | {0}]:
            del self.individuals[i]
