"""How fast a child trains, against loops of plain torch.

    python -m analysis.benchmarks.throughput --repeats 5

Made-up pictures in the shape of Fashion-MNIST; the recipe is that of the preset. The loops take turns, so
that a busy machine slows all of them alike; the table holds medians. GPU figures need a GPU.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec
import torch
from matplotlib.figure import Figure
from msgspec import Struct

from analysis.benchmarks.loops import plain_network, seconds_by_hand
from analysis.benchmarks.machine import Machine, this_machine
from analysis.benchmarks.synthetic import TRAINING, NetworkName, network, pictures
from analysis.common import CATEGORIES, run_command, save_figure, styled
from analysis.table import format_table
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.task import Task
from evo_topo.training import train
from populations.presets import PRESETS
from populations.slots import is_service_running

PROG = "python -m analysis.benchmarks.throughput"
Loop = Literal["evo_topo", "plain", "careful", "compiled"]
EPOCHS_ON_GPU = 5


class Job(NamedTuple):
    """One training to time.

    Attributes:
        loop: Which loop.
        network: Which network.
        examples: Training examples that it sees.
        device: Where.
    """

    loop: Loop
    network: NetworkName
    examples: int
    device: str


class Rate(Struct, frozen=True):
    """Examples per second of one loop; `ratio` is the median of `evo_topo` / this loop, repeat by repeat."""

    network: str
    device: str
    workers: int
    loop: str
    examples_per_second: float
    ratio: float


class ThroughputInfo(Struct, frozen=True):
    """All numbers of the benchmark."""

    machine: Machine
    examples: int
    repeats: int
    rates: list[Rate]
    note: str


def job_seconds(job: Job) -> float:
    """Seconds of one training, from an untrained network on the CPU or GPU to a trained one."""
    task, images = _data(job.device)
    recipe = PRESETS["fashion-mnist"].config.recipe
    # one size of batch, however long the loops run
    recipe = dataclasses.replace(recipe, examples=job.examples, batch_doublings=0, erase=0.0)
    if job.loop == "evo_topo":
        return _seconds_of_train(job, task, recipe)
    model: torch.nn.Module = plain_network(job.network).to(job.device)
    if job.loop == "compiled":
        torch.compiler.reset()  # every child is another network, so every child is compiled anew
        model = torch.compile(model)  # type: ignore[assignment]
    return seconds_by_hand(model, images, task.train.targets, recipe, careful=job.loop != "plain")


def _seconds_of_train(job: Job, task: Task, recipe: Recipe) -> float:
    model = build(network(job.network), 0)
    started = time.perf_counter()
    train(model, task, recipe, 0, torch.device(job.device))  # reads its loss at the end: it has finished
    return time.perf_counter() - started


@lru_cache(maxsize=1)
def _data(device: str) -> tuple[Task, torch.Tensor]:
    """Task and normalised training images, made once per process."""
    task = pictures().to(device)
    images = task.normalise(task.train.inputs)
    return task, images.flatten().view(images.shape)  # by strides, too, as a plain loop has them


def measure(
    networks: Sequence[NetworkName],
    loops: Sequence[Loop],
    workers: int,
    device: str,
    examples: int,
    repeats: int,
) -> list[Rate]:
    """Times every loop in as many processes at once, in turn.

    Args:
        networks: Which networks.
        loops: Which loops; `evo_topo` is the first.
        workers: Processes that train at the same time, of one thread each.
        device: Where.
        examples: Training examples of each training.
        repeats: Times that each is measured.
    """
    rates = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, torch.set_num_threads, (1,)) as pool:
        for name in networks:
            jobs = [Job(loop, name, examples, device) for loop in loops]
            found: dict[str, list[float]] = {loop: [] for loop in loops}
            for job in jobs:  # the first call of anything is slow
                pool.map(job_seconds, [job._replace(examples=256)] * workers, chunksize=1)
            for _ in range(repeats):
                for job in jobs:
                    seconds = pool.map(job_seconds, [job] * workers, chunksize=1)
                    found[job.loop].append(sum(examples / each for each in seconds))
            for loop, values in found.items():
                ratios = [ours / theirs for ours, theirs in zip(found[loops[0]], values, strict=True)]
                median = statistics.median(values)
                rates.append(Rate(name, device, workers, loop, median, statistics.median(ratios)))
    return rates


def throughput_table(info: ThroughputInfo) -> str:
    """The numbers as text."""
    machine = info.machine
    rows = [("MACs", "device", "workers", "loop", "examples/s", "evo_topo / loop")]
    for rate in info.rates:
        speed = f"{rate.examples_per_second:,.0f}"
        rows.append((rate.network, rate.device, str(rate.workers), rate.loop, speed, f"{rate.ratio:.2f}"))
    lines = [
        f"{machine.cpu}, threads: 1, torch {machine.torch}",
        f"{info.examples:,} examples, {info.repeats} repeats",
        info.note,
        "",
        format_table(rows, right=(0, 2, 4, 5)),
    ]
    for name, workers, gain in worker_gains(info.rates):
        lines.append(f"{name}: {workers} workers train {gain:.2f} times as much as one")
    return "\n".join(lines)


def worker_gains(rates: Sequence[Rate]) -> list[tuple[str, int, float]]:
    """Network, workers, and examples per second of `evo_topo` as a multiple of one worker's."""
    ours = [rate for rate in rates if rate.loop == "evo_topo"]
    alone = {(r.network, r.device): r.examples_per_second for r in ours if r.workers == 1}
    return [
        (r.network, r.workers, r.examples_per_second / alone[r.network, r.device])
        for r in ours
        if r.workers > 1 and (r.network, r.device) in alone
    ]


@styled
def draw_throughput(info: ThroughputInfo) -> Figure:
    """Draws examples per second, one group of bars per network, device and number of workers."""
    places = list(dict.fromkeys((r.network, r.device, r.workers) for r in info.rates))
    loops = list(dict.fromkeys(r.loop for r in info.rates))
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(loops)
    for number, (loop, colour) in enumerate(zip(loops, CATEGORIES, strict=False)):
        some = [rate for rate in info.rates if rate.loop == loop]
        at = [places.index((r.network, r.device, r.workers)) + (number + 0.5) * width - 0.4 for r in some]
        axes.bar(at, [r.examples_per_second for r in some], width, color=colour, label=loop)
    axes.set_xticks(range(len(places)), [f"{name}\n{device} x {count}" for name, device, count in places])
    axes.set_yscale("log")
    axes.set_ylabel("training examples per second")
    axes.legend(frameon=False, fontsize=8)
    return figure


def main(
    networks: tuple[NetworkName, ...] = get_args(NetworkName),
    workers: tuple[int, ...] = (1, 2),
    gpu_workers: tuple[int, ...] = (1, 2, 4, 8),
    loops: tuple[Loop, ...] = get_args(Loop),
    examples: int = 4000,
    repeats: int = 5,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Compares the speed of training with loops of plain torch.

    Args:
        networks: Which networks, by their MACs.
        workers: Numbers of processes that train at the same time on the CPU.
        gpu_workers: The same on one GPU.
        loops: What evo_topo is compared with, on the CPU and by one process on the GPU; compilation is
            timed on the GPU alone.
        examples: Training examples of a child on the CPU; on a GPU it is five epochs.
        repeats: Times that everything is measured.
        out: Folder for throughput.json; the figure goes to its `figures`.
    """
    if min((*workers, *gpu_workers, examples, repeats), default=1) < 1:
        raise ValueError("expected at least one worker, example and repeat")
    if not workers and not torch.cuda.is_available():
        raise ValueError("workers: there is no GPU here; expected numbers of processes on the CPU, got none")
    loops = "evo_topo", *(loop for loop in loops if loop != "evo_topo")
    rates, note = [], "no GPU here: GPU figures are left out"
    for count in workers:
        rates += measure(networks, [x for x in loops if x != "compiled"], count, "cpu", examples, repeats)
    if torch.cuda.is_available():
        many = EPOCHS_ON_GPU * TRAINING
        for count in gpu_workers:
            rates += measure(networks, loops if count == 1 else loops[:1], count, "cuda:0", many, repeats)
        sharing = "compute side by side" if is_service_running() else "take turns"
        note = (
            f"GPU: {torch.cuda.get_device_name()}, {many:,} examples a child, capture and compilation "
            f"counted; processes that share it {sharing}"
        )
    info = ThroughputInfo(this_machine(), examples, repeats, rates, note)
    print(throughput_table(info))
    out.mkdir(parents=True, exist_ok=True)
    (out / "throughput.json").write_bytes(msgspec.json.format(msgspec.json.encode(info)))
    save_figure(draw_throughput(info), out, "throughput")


def command(args: Sequence[str] | None = None) -> None:
    """The command line."""
    run_command(main, PROG, args, (OSError, ValueError))


if __name__ == "__main__":
    command()
