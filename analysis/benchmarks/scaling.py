"""What a child costs the driver, and what it costs a worker, as everything grows.

    python -m analysis.benchmarks.scaling --children 1000

The driver's own cost is that of `analysis.benchmarks.driver`. The worker's cost is that of developing a child
on made-up pictures in the shape of Fashion-MNIST, in a process of its own. What operations on genomes cost is
in `analysis.benchmarks.genome_ops`.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from matplotlib.figure import Figure
from msgspec import Struct

from analysis.benchmarks.driver import DriverInfo, driver_info
from analysis.benchmarks.machine import Machine, peak_memory, this_machine
from analysis.benchmarks.synthetic import LAYERS, NetworkName, network, pictures
from analysis.common import CATEGORIES, GREY, run_command, save_figure, styled
from analysis.table import format_table
from evo_topo.cost import count_macs
from evo_topo.recipe import Recipe
from evo_topo.task_file import save_task
from populations.development import develop
from populations.orders import DATA, Order
from populations.presets import PRESETS

PROG = "python -m analysis.benchmarks.scaling"
EXAMPLES = (5_000, 20_000, 55_000)
"""Training examples there are, as the data grow."""


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


def worker_info(name: NetworkName, training_examples: int, recipe: Recipe) -> WorkerInfo:
    """Measures the development of a child, in a process of its own.

    Args:
        name: Which network.
        training_examples: How many there are.
        recipe: How the child trains.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_develop, (name, training_examples, recipe))


def _develop(name: NetworkName, training_examples: int, recipe: Recipe) -> WorkerInfo:
    torch.set_num_threads(1)
    genome = network(name)
    with tempfile.TemporaryDirectory() as folder:
        save_task(pictures(training_examples), Path(folder) / DATA)
        for number, examples in enumerate((recipe.batch_size, recipe.examples)):  # the first loads libraries
            order = Order(
                id=number,
                run_dir=folder,
                genome=genome.to_json(),
                parent=None,
                parent_sha256="",
                edit=None,
                seed=0,
                recipe=dataclasses.replace(recipe, examples=examples, learning_rate=0.01),
                probe_examples=min(1000, training_examples),
            )
            outcome = develop(order, "cpu")
            if outcome.status != "ok":
                raise ValueError(f"the child could not be developed: {outcome.reason}")
    seconds, training = outcome.seconds, outcome.training_seconds
    return WorkerInfo(count_macs(genome), training_examples, seconds, training, peak_memory())


def scaling_table(info: ScalingInfo) -> str:
    """The numbers as text."""
    machine = info.machine
    rows: list[tuple[str, ...]] = [
        ("population", "children", "CPU ms", "wall ms", "of it storing", "growth", "bytes")
    ]
    for item in info.driver:
        times = [f"{value:.2f}" for value in (item.cpu, item.wall, item.storing, item.growth)]
        rows.append((f"{item.population:,}", f"{item.children:,}", *times, f"{item.bytes:,.0f}"))
    lines = [
        f"{machine.cpu}, threads: {machine.threads}, torch {machine.torch}",
        "",
        "the driver's own cost per child",
        format_table(rows, right=range(7)),
    ]
    if info.workers:
        work: list[tuple[str, ...]] = [
            ("MACs", "training examples", "seconds", "of them training", "peak MiB")
        ]
        for case in info.workers:
            times = [f"{value:.2f}" for value in (case.seconds, case.training_seconds)]
            cells = (f"{case.macs:,}", f"{case.training_examples:,}", *times, f"{case.bytes / 2**20:,.0f}")
            work.append(cells)
        lines += ["", "a worker's cost of one child", format_table(work, right=range(5))]
    return "\n".join(lines)


@styled
def draw_scaling(info: ScalingInfo) -> Figure:
    """Draws the driver's time and memory over the run, one line per size of the population."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for item, colour in zip(info.driver, itertools.cycle(CATEGORIES), strict=False):
        label = f"population {item.population:,}"
        born = [item.population * (1 + number) for number in range(len(item.generations))]
        time_axes.plot(born, item.generations, ".-", color=colour, label=label)
        memory = [value / 2**20 for value in item.memory]
        memory_axes.plot([0, *born], memory, ".-", color=colour, label=label)
    time_axes.axhline(5, color=GREY, linestyle="--", linewidth=0.8, label="aim")
    time_axes.legend(frameon=False, fontsize=8)
    time_axes.set_ylim(bottom=0)
    time_axes.set_ylabel("driver's CPU time per child in ms")
    memory_axes.set_ylabel("driver's memory in MiB")
    for axes in (time_axes, memory_axes):
        axes.set_xscale("log")
        axes.set_xlabel("children")
    memory_axes.set_xscale("symlog", linthresh=10)
    return figure


def main(
    populations: tuple[int, ...] = (12, 100, 1000),
    children: int = 1000,
    workers: bool = True,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Measures what a child costs the driver and a worker.

    Args:
        populations: Sizes of the population that the driver is measured at.
        children: Fewest children of such a run; there are always four generations.
        workers: Whether the cost of a worker is measured too.
        out: Folder for scaling.json; the figure goes to its `figures`.
    """
    if min(populations) < 4 or children < 1:
        raise ValueError("expected populations of at least 4 and at least one child")
    driver = []
    for population in populations:
        driver.append(driver_info(population, children))
        print(f"population {population:,}: {driver[-1].cpu:.2f} ms of CPU time per child", flush=True)
    recipe = PRESETS["fashion-mnist"].config.recipe
    cases: list[tuple[NetworkName, int]] = [(name, max(EXAMPLES)) for name in LAYERS]
    cases += [("2 M", count) for count in EXAMPLES if count < max(EXAMPLES)]
    costs = [worker_info(*case, recipe) for case in cases] if workers else []
    info = ScalingInfo(this_machine(), driver, costs)
    print(scaling_table(info))
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.json").write_bytes(msgspec.json.format(msgspec.json.encode(info)))
    save_figure(draw_scaling(info), out, "scaling")


def command(args: Sequence[str] | None = None) -> None:
    """The command line."""
    run_command(main, PROG, args, (OSError, ValueError))


if __name__ == "__main__":
    command()
