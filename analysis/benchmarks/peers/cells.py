"""A cell of the comparison, what it leaves on disk, and what every method is given to work with."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

import evo_topo
import populations
from analysis.benchmarks.machine import Machine
from evo_topo.genome import Genome
from populations.config import Config
from populations.files import write_whole
from populations.presets import PRESETS
from populations.schedule import END_SECONDS
from populations.slots import Slots

DataName = Literal["digits", "fashion-mnist"]
Setting = dict[str, float]
"""Numbers that a method was tuned in, by name."""

WORKERS = 2
"""Processes that train at the same time, of one thread each."""
RIVAL_FIELDS = {
    "torch-pruning": ("recipe", "probe_examples"),
    "optuna": (
        "recipe",
        "founder_examples",
        "example_exponent",
        "ceiling",
        "parents",
        "accuracy_floor",
        "polished",
        "polish_share",
    ),
}
"""What rivals share with the preset: they know nothing of the rest, so their cells outlive its changes."""


class Cell(Struct, frozen=True):
    """One run of one method.

    Attributes:
        data: Data set; recipe and founder are those of the preset with this name.
        method: What searches.
        seed: Of everything random.
        minutes: Wall-clock, from the start of the process to the last network read on the test split.
        setting: Number of the setting that is tried in tuning; None for the one that was chosen.
    """

    data: DataName
    method: str
    seed: int
    minutes: float
    setting: int | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        tried = "" if self.setting is None else f"-setting{self.setting}"
        return f"{self.data}-{self.method}-{self.minutes:g}min-{self.seed}{tried}"


class Point(Struct, frozen=True):
    """One measured network.

    Attributes:
        seconds: When it was known, since the start of the process.
        macs: Multiply-accumulates for one example.
        params: Trainable parameters.
        accuracy: On the validation split.
        test_accuracy: On the test split, of the networks that the method reports at its end; read once.
    """

    seconds: float
    macs: int
    params: int
    accuracy: float
    test_accuracy: float | None = None


class Record(Struct, frozen=True):
    """What a cell found.

    Attributes:
        cell: Which one.
        machine: What it ran on; its threads are those of each worker.
        workers: Processes that trained at the same time.
        founder_macs: MACs of the preset's founder.
        setting: What the method was tuned in.
        seconds: What the whole cell took.
        points: Every network whose validation accuracy the method measured.
        cpu_seconds: Processor time of all its processes: little of it where the machine had other work to do.
        preset: Digest of what it went by of the preset.
        code: Digest of the packages that it ran.
    """

    cell: Cell
    machine: Machine
    workers: int
    founder_macs: int
    setting: Setting
    seconds: float
    points: list[Point]
    cpu_seconds: float = 0.0
    preset: str = ""
    code: str = ""

    @property
    def reported(self) -> list[Point]:
        """The networks that the method ends with, by rising MACs."""
        return sorted((p for p in self.points if p.test_accuracy is not None), key=lambda p: p.macs)


class Network(NamedTuple):
    """A network that a method measured; its weights lie in the cell's folder.

    Attributes:
        id: Number of its weights' file.
        genome: The network.
        sha256: Digest of its weights.
        seconds: When it was known, since the start of the process.
        accuracy: On the validation split.
        is_final: Whether it may be reported: others were only steps on the way.
    """

    id: int
    genome: Genome
    sha256: str
    seconds: float
    accuracy: float
    is_final: bool


class Clock(NamedTuple):
    """The wall-clock of a cell, read alike in all of its processes.

    Attributes:
        started: When its process was started, by the monotonic clock, which the whole machine shares.
        limit: Seconds that it has.
    """

    started: float
    limit: float

    @property
    def elapsed(self) -> float:
        """Seconds since the start, that of the interpreter and all imports included."""
        return time.monotonic() - self.started

    @property
    def end(self) -> float:
        """Seconds after the start at which searching ends: the test split is read after that."""
        return self.limit - END_SECONDS


class Bench(NamedTuple):
    """What a method is given.

    Attributes:
        config: From `config_of`, with the cell's seed and number of workers.
        founder: The preset's founder.
        clock: How long there is.
        folder: Where weights go; the data lie there as in a run folder.
        slots: Two workers of one thread.
    """

    config: Config
    founder: Genome
    clock: Clock
    folder: Path
    slots: Slots


def record_path(out: Path, cell: Cell) -> Path:
    """Where the record of a cell is kept."""
    return out / "cells" / f"{cell.name}.json"


def config_of(data: DataName, method: str) -> Config:
    """The preset's configuration, or as much of it as a rival goes by."""
    whole = PRESETS[data].config
    if method not in RIVAL_FIELDS:
        return whole
    return Config(preset=data, **{name: getattr(whole, name) for name in RIVAL_FIELDS[method]})


def preset_digest(data: DataName, method: str) -> str:
    """Tells presets apart: cells of different founders or settings do not belong in one table."""
    text = config_of(data, method).to_json() + PRESETS[data].founder().fingerprint
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def code_digest() -> str:
    """Tells versions of the code apart, that of the networks and of the search."""
    digest = hashlib.blake2b(digest_size=8)
    for package in (evo_topo, populations):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_record(path: Path) -> Record | None:
    """A finished cell, or None where there is none.

    Raises:
        ValueError: When the file is no such record, or that of another preset than today's.
    """
    if not path.exists():
        return None
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(f"{path}: expected the record of a finished cell: {error}; remove it") from None
    if record.preset != preset_digest(record.cell.data, record.cell.method):
        raise ValueError(f"{path}: the preset has changed since this cell was run; remove it")
    return record


def write_record(path: Path, record: Record) -> None:
    """Keeps a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(record)) + b"\n")
