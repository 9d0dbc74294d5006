"""How far a run is: plain numbers for whoever shows them. The loop itself knows no screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        run_dir: The run folder.
        phase: What is being done, in words.
        generation: The generation under way.
        generations: How many there will be; None when time decides.
        children_done: Children of this generation that are developed.
        children: Children of this generation.
        failed: Individuals that failed so far.
        stopped: Individuals that were stopped at half-time so far.
        best_accuracy: Best validation accuracy in the population.
        front: (id, validation accuracy, FLOPs) of the population's front, by rising FLOPs.
        elapsed: Seconds since the run began, earlier sittings included.
        remaining: Seconds that it will still take, as far as can be told.
    """

    run_dir: Path
    phase: str
    generation: int
    generations: int | None
    children_done: int
    children: int
    failed: int
    stopped: int
    best_accuracy: float
    front: list[tuple[int, float, int]]
    elapsed: float
    remaining: float | None


Report = Callable[[Progress], None]
