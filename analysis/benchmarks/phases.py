"""Where the wall-clock of an evolution goes: every worker times the parts of a development.

    python -m analysis.benchmarks.phases fashion-mnist --minutes 15

A run of a preset by the clock, from the end of the founder's training, which has one worker, to the end of
the polish. The founder for comparison is left out.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import msgspec
import tyro
from matplotlib.figure import Figure
from msgspec import Struct

from analysis.benchmarks.machine import Machine, this_machine
from analysis.common import CATEGORIES, run_command, save_figure, styled
from evo_topo.datasets import DatasetError, load_dataset
from evo_topo.task import Task
from evo_topo.task_file import save_task
from populations import development
from populations.config import Config, PresetName
from populations.dispatch import EvolutionError
from populations.evolution import Evolution
from populations.individual import Outcome
from populations.lineage import Lineage
from populations.orders import DATA, Order
from populations.presets import PRESETS
from populations.slots import Slots, resolve_devices
from populations.workers import Crew

PROG = "python -m analysis.benchmarks.phases"
PARTS = {
    "training": ("train", "train_further"),
    "evaluation": ("reestimate_batchnorm", "evaluate"),
    "inheritance": ("conceive",),
    "pricing": ("price_edits",),
    "storing weights": ("save_weights",),
}
"""Functions of `populations.development` that an order spends its time in."""
REST = "the rest of a worker's work"


class PhasesInfo(Struct, frozen=True):
    """Where the time of the workers goes, from the founder's end to the last generation's or the polish's.

    Attributes:
        machine: What it was measured on.
        preset: Founder, data and recipe.
        devices: One for each child at a time.
        children: Children developed.
        wall: Wall-clock seconds.
        shares: Of workers x wall-clock, by part; they sum to one.
        outside: All but training and evaluation.
    """

    machine: Machine
    preset: str
    devices: tuple[str, ...]
    children: int
    wall: float
    shares: dict[str, float]
    outside: float


def develop_timed(order: Order, device: str) -> Outcome:
    """Develops a child, or prices an individual, and leaves beside its run how long each part took."""
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent[part] += time.perf_counter() - started

        return call

    names = {name: part for part, some in PARTS.items() for name in some}
    replaced: dict[str, Any] = {name: timed(part, getattr(development, name)) for name, part in names.items()}
    with mock.patch.multiple(development, **replaced):
        outcome = development.develop(order, device)
    spent[REST] = outcome.seconds - sum(spent.values())
    if order.id or order.criterion is not None:  # the founder is trained before
        name = "developed" if order.criterion is None else "priced"
        (Path(order.run_dir) / f"{name}-{order.id}.phases").write_text(json.dumps(spent))
    return outcome


def phases_info(task: Task, config: Config) -> PhasesInfo:
    """Runs an evolution and says where its time went.

    Args:
        task: The data.
        config: How to evolve, and where.
    """
    devices = resolve_devices(config.devices, config.workers, config.threads)
    with tempfile.TemporaryDirectory() as name, Lineage(Path(name)) as lineage:
        folder = Path(name)
        save_task(task, folder / DATA)
        slots = Slots(devices, config.threads, folder)
        count = len(task.validation.targets)
        founder = PRESETS[config.preset].founder()
        evolution = Evolution(config, founder, count, lineage, slots, lambda _: None)
        evolution.dispatch.crew = Crew(slots, develop_timed)
        evolution.run()
        seconds, children = lineage.seconds(), [i for i in lineage.individuals() if i.generation]
        spent: dict[str, float] = defaultdict(float)
        for path in folder.glob("*.phases"):
            for part, value in json.loads(path.read_text()).items():
                spent[part] += value
    wall = max(seconds.values()) - seconds[0]
    shares = {part: value / (len(devices) * wall) for part, value in spent.items()}
    shares["waiting, and the driver"] = 1 - sum(shares.values())
    outside = 1 - shares.get("training", 0.0) - shares.get("evaluation", 0.0)
    return PhasesInfo(this_machine(), config.preset, devices, len(children), wall, shares, outside)


def phases_table(info: PhasesInfo) -> str:
    """The numbers as text."""
    lines = [
        f"{info.machine.cpu}, torch {info.machine.torch}",
        f"{info.preset} on {', '.join(info.devices)}, {info.children} children, {info.wall:.0f} s",
        *(f"  {share:6.1%}  {part}" for part, share in info.shares.items()),
        f"  {info.outside:6.1%}  outside training and evaluation",
    ]
    return "\n".join(lines)


@styled
def draw_phases(info: PhasesInfo) -> Figure:
    """Draws the shares, one bar per part."""
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(info.shares), list(info.shares.values()), color=CATEGORIES[0])
    axes.bar_label(bars, [f"{share:.1%}" for share in info.shares.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of workers x wall-clock")
    return figure


def main(
    preset: Annotated[PresetName, tyro.conf.Positional],
    minutes: float = 5.0,
    devices: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Tells where the time of an evolution goes.

    Args:
        preset: Founder, data and recipe.
        minutes: Length of the run.
        devices: As for `run.py`.
        workers: As for `run.py`.
        seed: Seed of the run.
        data_dir: Folder to look for the data in first.
        out: Folder for phases.json; the figure goes to its `figures`.
    """
    config = dataclasses.replace(
        PRESETS[preset].config,
        generations=None,
        minutes=minutes,
        compare=False,
        seed=seed,
        devices=devices,
        workers=workers,
    )
    task = load_dataset(preset, data_dir)
    print(f"evolving {preset} for {minutes:g} minutes", flush=True)
    info = phases_info(task, config)
    print(phases_table(info))
    out.mkdir(parents=True, exist_ok=True)
    (out / "phases.json").write_bytes(msgspec.json.format(msgspec.json.encode(info)))
    save_figure(draw_phases(info), out, "phases")


def command(args: Sequence[str] | None = None) -> None:
    """The command line."""
    run_command(main, PROG, args, (OSError, ValueError, DatasetError, EvolutionError))


if __name__ == "__main__":
    command()
