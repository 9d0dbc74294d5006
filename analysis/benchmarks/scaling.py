"""What a child costs the driver, and what it costs a worker, as everything grows.

    python -m analysis.benchmarks.scaling --children 1000

The driver's own cost is that of a real evolution with a real lineage on disk, in which developing a child is
replaced by making an outcome up; what that takes is left out. Passing orders between processes is left out
too. Memory is counted in a second evolution, because counting it takes time. The worker's cost is that of
developing a child on made-up pictures in the shape of Fashion-MNIST, in a process of its own. What operations
on genomes cost is in `analysis.benchmarks.genome_ops`.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import msgspec
import tyro
from matplotlib.figure import Figure
from msgspec import Struct

from analysis.benchmarks.criteria import Machine, this_machine
from analysis.benchmarks.stub import StubCrew
from analysis.benchmarks.synthetic import VALIDATION, WIDTHS, network, pictures
from analysis.common import ACCENT, CATEGORIES, GREY, save_figure, styled
from analysis.table import format_table
from evo_topo.cost import count_macs
from evo_topo.genome import Genome
from evo_topo.recipe import Recipe
from evo_topo.task import save_task
from populations.config import Config
from populations.development import DATA, Order, develop
from populations.evolution import Evolution
from populations.individual import Individual
from populations.lineage import Lineage
from populations.presets import PRESETS
from populations.workers import Slots

PROG = "python -m analysis.benchmarks.scaling"
GENERATIONS = 4
"""Fewest of a measured evolution: its first fills the population, so growth is looked for in the later half."""
EXAMPLES = (5_000, 20_000, 55_000)
"""Training examples there are, as the data grow."""


class DriverInfo(Struct, frozen=True):
    """The driver's own cost at one size of the population.

    Attributes:
        population: Parents, and children per generation.
        children: Children of the run.
        milliseconds: Mean per child over the run.
        generations: Mean per child of each generation, in milliseconds.
        bytes: By how much the driver's memory grows per child, over the later half of the run.
        memory: Bytes of memory at the end of each generation.
    """

    population: int
    children: int
    milliseconds: float
    generations: list[float]
    bytes: float
    memory: list[int]

    @property
    def growth(self) -> float:
        """Cost in the last third of the run, as a multiple of that in the third before."""
        third = max(1, len(self.generations) // 3)
        return statistics.fmean(self.generations[-third:]) / statistics.fmean(
            self.generations[-2 * third : -third]
        )


class WorkerInfo(Struct, frozen=True):
    """What developing one child costs a worker.

    Attributes:
        macs: Of the network.
        training_examples: Training examples that there are; as many of them are trained on in every case.
        seconds: Wall-clock of the development.
        training_seconds: Of these, of training.
        bytes: Peak memory of the process, with torch and the mapped data.
    """

    macs: int
    training_examples: int
    seconds: float
    training_seconds: float
    bytes: int


class ScalingInfo(Struct, frozen=True):
    """All numbers of the benchmark."""

    machine: Machine
    driver: list[DriverInfo]
    workers: list[WorkerInfo]


class _Watched(Evolution):
    """Reads the clock and the memory when a generation is finished; made-up outcomes take no time."""

    def __init__(self, config: Config, founder: Genome, lineage: Lineage) -> None:
        slots = Slots(("cpu", "cpu"), 1, lineage.run_dir)
        super().__init__(config, founder, VALIDATION, lineage, slots, lambda _: None)
        self.stub = StubCrew(slots, VALIDATION)
        self.crew = self.stub
        self.seconds: list[float] = []
        self.memory: list[int] = []

    def _finish_generation(
        self, generation: int, survivors: list[Individual], is_polish: bool = False
    ) -> None:
        super()._finish_generation(generation, survivors, is_polish)
        self.seconds.append(time.perf_counter() - self.stub.seconds)
        if tracemalloc.is_tracing():
            gc.collect()
            self.memory.append(tracemalloc.get_traced_memory()[0])


def driver_info(population: int, children: int) -> DriverInfo:
    """Measures the driver at one size of the population.

    Args:
        population: Parents, and children per generation.
        children: Fewest children; there are always some generations.
    """
    generations = max(GENERATIONS, round(children / population))
    seconds = _evolve(population, generations).seconds
    tracemalloc.start()
    try:
        memory = _evolve(population, generations).memory
    finally:
        tracemalloc.stop()
    each = [(b - a) / population for a, b in zip(seconds, seconds[1:], strict=False)]
    half = len(memory) // 2
    grown = (memory[-1] - memory[half]) / (population * (len(memory) - 1 - half))
    cost = 1000 * statistics.fmean(each)
    return DriverInfo(
        population, population * generations, cost, [1000 * value for value in each], grown, memory
    )


def _evolve(population: int, generations: int) -> _Watched:
    """A run without training, in which the driver also works out what time is left."""
    config = dataclasses.replace(
        PRESETS["fashion-mnist"].config,
        parents=population,
        offspring=population,
        generations=generations,
        minutes=1e5,
        polish_examples=0,
    )
    with tempfile.TemporaryDirectory() as folder, Lineage(Path(folder)) as lineage:
        evolution = _Watched(config, PRESETS["fashion-mnist"].founder(), lineage)
        evolution.run()
    return evolution
