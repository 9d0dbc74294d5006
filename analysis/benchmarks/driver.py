"""The driver's own cost: a real evolution with a real lineage on disk, in which no child is trained.

Developing a child is replaced by making an outcome up; what that takes is left out. Passing orders between
processes is left out, too. Memory is counted in a second evolution, because counting it takes time.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from analysis.benchmarks.stub import StubCrew
from analysis.benchmarks.synthetic import VALIDATION
from evo_topo.genome import Genome
from populations.config import Config
from populations.evolution import Evolution
from populations.generations import Generations
from populations.individual import Individual
from populations.lineage import Lineage
from populations.memory import Memory
from populations.presets import PRESETS
from populations.slots import Slots

GENERATIONS = 4
"""Fewest of a measured evolution: the first fills the population, so memory is compared from half on."""


class DriverInfo(Struct, frozen=True):
    """The driver's own cost at one size of the population; times are means per child, in milliseconds.

    Attributes:
        population: Parents, and children per generation.
        children: Children of the run.
        wall: Wall-clock time.
        storing: Of this, what the lineage takes, which waits until the disk has everything.
        cpu: CPU time.
        generations: CPU time by generation.
        growth: CPU time in the later half of the run as a multiple of the earlier half's.
        bytes: By how much the driver's memory grows, over the later half of the run.
        memory: Bytes of memory at the end of each generation.
    """

    population: int
    children: int
    wall: float
    storing: float
    cpu: float
    generations: list[float]
    growth: float
    bytes: float
    memory: list[int]


class _TimedLineage(Lineage):
    """Knows how long it took to store."""

    seconds_storing = 0.0

    def add(self, individual: Individual) -> None:
        started = time.perf_counter()
        super().add(individual)
        self.seconds_storing += time.perf_counter() - started

    def set_prices(self, individual: Individual) -> None:
        started = time.perf_counter()
        super().set_prices(individual)
        self.seconds_storing += time.perf_counter() - started


class _Watched(Generations):
    """Reads clocks and memory when a generation is finished; made-up outcomes take no time."""

    def __init__(
        self, config: Config, founder: Genome, lineage: Lineage, memory: Memory, stub: StubCrew
    ) -> None:
        super().__init__(config, founder, VALIDATION, lineage, memory)
        self.stub = stub
        self.clocks: list[tuple[float, float]] = []
        self.traced: list[int] = []

    def finish(
        self, generation: int, survivors: Sequence[Individual], elapsed: float, is_polish: bool = False
    ) -> None:
        super().finish(generation, survivors, elapsed, is_polish)
        stub = self.stub
        self.clocks.append((time.perf_counter() - stub.seconds, time.process_time() - stub.cpu_seconds))
        if tracemalloc.is_tracing():
            gc.collect()
            self.traced.append(tracemalloc.get_traced_memory()[0])


def driver_info(population: int, children: int) -> DriverInfo:
    """Measures the driver at one size of the population.

    Args:
        population: Parents, and children per generation.
        children: Fewest children; there are always some generations.
    """
    generations = max(GENERATIONS, math.ceil(children / population))
    clocks, storing = _evolve(population, generations)[:2]
    tracemalloc.start()
    try:
        memory = _evolve(population, generations)[2]
    finally:
        tracemalloc.stop()
    total, half = population * generations, generations // 2
    cpu = [1000 * (b - a) / population for (_, a), (_, b) in itertools.pairwise(clocks)]
    return DriverInfo(
        population=population,
        children=total,
        wall=1000 * (clocks[-1][0] - clocks[0][0]) / total,
        storing=1000 * storing / (1 + total),
        cpu=statistics.fmean(cpu),
        generations=cpu,
        growth=statistics.fmean(cpu[half:]) / statistics.fmean(cpu[:half]),
        bytes=(memory[-1] - memory[half]) / (population * (generations - half)),
        memory=memory,
    )


def _evolve(population: int, generations: int) -> tuple[list[tuple[float, float]], float, list[int]]:
    """Clocks, seconds spent on storing, and memory of a run; the time that is left is worked out, too."""
    config = dataclasses.replace(
        PRESETS["fashion-mnist"].config,
        parents=population,
        offspring=population,
        generations=generations,
        minutes=1e5,
        polish_examples=0,
    )
    with tempfile.TemporaryDirectory() as folder, closing(_TimedLineage(Path(folder))) as lineage:
        slots, founder = Slots(("cpu", "cpu"), 1, lineage.run_dir), PRESETS["fashion-mnist"].founder()
        evolution = Evolution(config, founder, VALIDATION, lineage, slots, lambda _: None)
        evolution.dispatch.crew = stub = StubCrew(slots, VALIDATION)
        evolution.generations = watched = _Watched(config, founder, lineage, evolution.memory, stub)
        evolution.run()
        return watched.clocks, lineage.seconds_storing, watched.traced
