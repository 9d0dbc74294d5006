"""Where the wall-clock of an evolution goes: every worker times the parts of a development."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec import Struct

from evo_topo.task import Task
from evo_topo.task_file import save_task
from populations import development
from populations.config import Config
from populations.evolution import Evolution
from populations.individual import Outcome
from populations.lineage import Lineage
from populations.orders import DATA, Order
from populations.presets import PRESETS
from populations.workers import Crew, Slots

PARTS = {
    "training": ("train",),
    "evaluation": ("reestimate_batchnorm", "evaluate"),
    "inheritance": ("conceive",),
    "pricing": ("price_edits",),
    "storing weights": ("save_weights",),
}
"""Functions of `populations.development` that an order spends its time in."""
REST = "the rest of a worker's work"


class PhasesInfo(Struct, frozen=True):
    """Where the time of the workers goes, from the founder's end to the last generation's.

    Attributes:
        workers: Processes.
        children: Children developed.
        wall: Wall-clock seconds.
        shares: Of workers x wall-clock, by part; they sum to one.
        outside: All but training and evaluation.
    """

    workers: int
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


def phases_info(task: Task, config: Config, workers: int) -> PhasesInfo:
    """Runs a short evolution and says where its time went.

    Args:
        task: The data.
        config: How to evolve; generations and no polish.
        workers: Processes on the CPU, of one thread each.
    """
    config = dataclasses.replace(config, polish_examples=0, minutes=None)
    with tempfile.TemporaryDirectory() as name, Lineage(Path(name)) as lineage:
        folder = Path(name)
        save_task(task, folder / DATA)
        slots = Slots(("cpu",) * workers, 1, folder)
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
    shares = {part: value / (workers * wall) for part, value in spent.items()}
    shares["waiting, and the driver"] = 1 - sum(shares.values())
    outside = 1 - shares.get("training", 0.0) - shares.get("evaluation", 0.0)
    return PhasesInfo(workers, len(children), wall, shares, outside)
