"""Running one cell in a process of its own, under the clock."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import msgspec
import torch

from analysis.benchmarks.machine import this_machine
from analysis.benchmarks.peers import ours, pruning, search
from analysis.benchmarks.peers.cells import (
    WORKERS,
    Bench,
    Cell,
    Clock,
    DataName,
    Network,
    Point,
    Record,
    Setting,
    code_digest,
    config_of,
    preset_digest,
    record_path,
    write_record,
)
from evo_topo.cost import count_macs, count_params
from evo_topo.datasets import load_dataset
from evo_topo.task_file import save_task
from populations.dispatch import EvolutionError
from populations.fitness import pareto_front
from populations.orders import DATA
from populations.presets import PRESETS
from populations.slots import Slots
from populations.testing import Stored, accuracies_on_test
from populations.workers import die_with, stop_workers

CONTROLS: dict[str, ours.Variant] = {
    "random": ours.random_edits,
    "magnitude": ours.magnitude,
    "no-inheritance": ours.no_inheritance,
    "prunes-only": ours.prunes_only,
    "splits-only": ours.splits_only,
    "thin-founder": ours.from_thin,
}
EVOLUTIONS: dict[str, ours.Variant] = {"evo_topo": ours.as_it_is, **CONTROLS}
SEARCHES: dict[str, Callable[[Bench, Setting], list[Network]]] = {
    "torch-pruning": pruning.pruned,
    "optuna": search.searched,
}
TUNED: dict[str, tuple[Setting, Sequence[Setting]]] = {
    "torch-pruning": (pruning.SETTING, pruning.SETTINGS),
    "optuna": (search.SETTING, search.SETTINGS),
}
"""What a method runs with, and what it was chosen from."""
MethodName = Literal[
    "evo_topo",
    "torch-pruning",
    "optuna",
    "random",
    "magnitude",
    "no-inheritance",
    "prunes-only",
    "splits-only",
    "thin-founder",
]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
PACKAGES = {"torch-pruning": "torch_pruning", "optuna": "optuna"}


def check_installed(methods: Sequence[str]) -> None:
    """Checks that the packages are there that methods need.

    Raises:
        ImportError: When one is missing; the message says how to get it.
    """
    missing = [method for method in methods if method in PACKAGES and find_spec(PACKAGES[method]) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} cannot run here; pip install {' '.join(missing)}")


def prepare_data(data: DataName, data_dir: Path | None, out: Path) -> None:
    """Stores a data set where the processes of all cells map it into memory, unless it lies there."""
    path = _data_path(out, data)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_task(load_dataset(data, data_dir), path)


def run_cell(cell: Cell, out: Path) -> bool:
    """Runs a cell in a fresh process, whose start is on the clock, and keeps its record.

    Args:
        cell: What to run.
        out: Folder of all cells; the data are prepared.

    Returns:
        Whether it was finished; otherwise the process has said why not.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_run_here, args=(cell, out, time.monotonic(), os.getpid())
    )
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        process.join()  # it was interrupted as well
        raise
    return process.exitcode == 0


def _run_here(cell: Cell, out: Path, started: float, parent: int) -> None:
    die_with(parent)
    try:
        record = make_record(cell, out, started)
    except (ValueError, OSError, EvolutionError) as error:
        raise SystemExit(f"{cell.name}: {error}") from None
    finally:
        stop_workers()  # this process would wait for them, idle as they are
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in spent)
    write_record(record_path(out, cell), msgspec.structs.replace(record, cpu_seconds=cpu_seconds))


def make_record(cell: Cell, out: Path, started: float) -> Record:
    """Runs a cell in this process, which was started at this time of the monotonic clock.

    Raises:
        ValueError: When nothing is left of the time.
        EvolutionError: When the founder of an evolution cannot be trained.
    """
    torch.set_num_threads(1)
    chosen, settings = TUNED.get(cell.method, ({}, ()))
    setting = chosen if cell.setting is None else settings[cell.setting]
    clock = Clock(started, 60 * cell.minutes)
    bench = prepare(cell, out, clock)
    if clock.elapsed >= clock.end:
        raise ValueError(
            f"expected time to train within {clock.limit:g} s, got a start that took {clock.elapsed:.0f} s; "
            "give it more minutes, or a machine that does nothing else"
        )
    if cell.method in EVOLUTIONS:
        points = ours.evolved(bench, EVOLUTIONS[cell.method])
    else:
        networks = SEARCHES[cell.method](bench, setting)
        points = tested_points(bench, networks, reads_test=cell.setting is None)
    founder_macs = count_macs(bench.founder)
    record = Record(
        cell,
        this_machine(),
        WORKERS,
        founder_macs,
        setting,
        clock.elapsed,
        points,
        preset=preset_digest(cell.data, cell.method),
        code=code_digest(),
    )
    shutil.rmtree(bench.folder / "weights", ignore_errors=True)
    return record


def prepare(cell: Cell, out: Path, clock: Clock) -> Bench:
    """An empty folder with the data in it, and the preset's settings for this cell."""
    folder = out / "runs" / cell.name
    shutil.rmtree(folder, ignore_errors=True)  # of a cell that was stopped
    folder.mkdir(parents=True)
    os.symlink(_data_path(out, cell.data).resolve(), folder / DATA)
    config = dataclasses.replace(
        config_of(cell.data, cell.method), seed=cell.seed, workers=WORKERS, threads=1, devices="cpu"
    )
    slots = Slots(("cpu",) * WORKERS, 1, folder / "slots")
    return Bench(config, PRESETS[cell.data].founder(), clock, folder, slots)


def tested_points(bench: Bench, networks: Sequence[Network], reads_test: bool) -> list[Point]:
    """What a search measured; its front by validation accuracy is read on the test split now, once.

    Args:
        bench: Of the cell.
        networks: All that was measured.
        reads_test: Not while a method is being tuned.
    """
    final = [network for network in networks if network.is_final]
    front = pareto_front(final, lambda n: n.accuracy, lambda n: float(count_macs(n.genome)))
    stored = [Stored(network.id, network.genome, network.sha256) for network in front if reads_test]
    tested = accuracies_on_test(stored, bench.folder, bench.config.recipe, bench.slots)
    return [
        Point(n.seconds, count_macs(n.genome), count_params(n.genome), n.accuracy, tested.get(n.id))
        for n in networks
    ]


def _data_path(out: Path, data: DataName) -> Path:
    return out / "data" / f"{data}.safetensors"
