"""The survivors of a finished run, and picking one of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from evo_topo.genome import Genome
from evo_topo.splits import SPLITS
from evo_topo.task import Task
from populations.config import ConfigError
from populations.files import FRONT, TASK
from populations.individual import Individual
from populations.lineage import line_of_descent, load_run
from populations.orders import weights_path
from populations.records import LineageError

T = TypeVar("T")


class Entry(Struct, frozen=True):
    """A measured network, as ``front.json`` lists it.

    Attributes:
        id: The individual's id; the founder's is 0, also where it was trained longer for comparison.
        accuracy: Validation accuracy.
        test_accuracy: Test accuracy, measured once, at the end.
        macs: Multiply-accumulates for one example.
        flops: 2 x MACs.
        params: Trainable parameters.
        genome: The network as data (JSON object).
    """

    id: int
    accuracy: float
    test_accuracy: float
    macs: int
    flops: Annotated[int, Meta(ge=1)]
    params: int
    genome: dict[str, Any]


class TaskRecord(Struct, frozen=True):
    """What a run tells of its data, as ``task.json`` holds it.

    Attributes:
        name: Its name.
        input_shape: Shape of one input.
        num_classes: Number of classes.
        mean: Per channel, of the raw inputs.
        std: The same for the standard deviation.
        examples: Numbers of training, validation and test examples.
        is_own: Whether the data are the user's own, which nobody can load again.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    examples: tuple[int, int, int]
    is_own: bool


class Survivor(NamedTuple):
    """One network of a run, with all that is known of it.

    Attributes:
        individual: Its record in the lineage.
        line: Its line of descent, founder first.
        test_accuracy: Accuracy on the test split; None for one that is not on the front.
        weights: Where its weights are.
        task: What the run tells of its data.
    """

    individual: Individual
    line: list[Individual]
    test_accuracy: float | None
    weights: Path
    task: TaskRecord

    @property
    def genome(self) -> Genome:
        """The network as data."""
        return self.individual.genome


def record_of(task: Task, is_own: bool) -> TaskRecord:
    """What there is to tell of the data of a run.

    Args:
        task: The data.
        is_own: Whether they are the user's own.
    """
    train, validation, test = (len(getattr(task, split).targets) for split in SPLITS)
    return TaskRecord(
        task.name,
        tuple(task.input_shape),
        task.num_classes,
        tuple(task.mean.tolist()),
        tuple(task.std.tolist()),
        (train, validation, test),
        is_own,
    )


def read_task(run_dir: Path) -> TaskRecord:
    """What a run tells of its data.

    Raises:
        LineageError: When that is missing or damaged.
    """
    return _read(run_dir / TASK, TaskRecord)


def read_front(run_dir: Path) -> list[Entry]:
    """The measured front of a finished run.

    Raises:
        LineageError: When it is missing or damaged.
    """
    front = _read(run_dir / FRONT, list[Entry])
    if not front:
        raise LineageError(f"{run_dir / FRONT} is damaged: it lists nobody")
    return front


def find_survivor(run_dir: Path, pick: str) -> Survivor:
    """Finds a network of a finished run.

    Args:
        run_dir: The run folder.
        pick: ``best`` for the highest validation accuracy, ``knee`` for the point of the front where more
            FLOPs begin to bring little, or an id.

    Raises:
        ConfigError: When there is no such network, or its weights are gone.
        LineageError: When the folder holds no run, or a damaged one.
    """
    individuals = {individual.id: individual for individual in load_run(run_dir)}
    front = read_front(run_dir) if (run_dir / FRONT).exists() else []
    measured = {entry.id: entry.test_accuracy for entry in front}
    if unknown := sorted(measured.keys() - individuals.keys()):
        raise LineageError(f"{run_dir / FRONT} is damaged: the lineage holds no {unknown}")
    members = [individuals[id_] for id_ in measured]
    if pick in ("best", "knee"):
        if not members:
            raise ConfigError(f"{run_dir} is not finished: it holds no {FRONT} to pick from; name an id")
        chosen = _best(members) if pick == "best" else knee(members)
    elif pick.isdecimal() and int(pick) in individuals:
        chosen = individuals[int(pick)]
    else:
        raise ConfigError(f"pick: expected knee, best or the id of an individual of {run_dir}, got {pick!r}")
    weights = weights_path(run_dir, chosen.id)
    if not weights.is_file():
        kept = sorted(id_ for id_ in individuals if weights_path(run_dir, id_).is_file())
        raise ConfigError(f"individual {chosen.id} did not survive: its weights are gone; kept are {kept}")
    task = read_task(run_dir)
    line = line_of_descent(list(individuals.values()), chosen.id)
    return Survivor(chosen, line, measured.get(chosen.id), weights, task)


def knee(front: list[Individual]) -> Individual:
    """The member furthest above the line between the ends of the front, in accuracy against log FLOPs."""
    first, last = (pick(front, key=lambda i: i.flops) for pick in (min, max))
    width = math.log(last.flops / first.flops) or 1.0
    height = (_accuracy(last) - _accuracy(first)) or 1.0

    def above(member: Individual) -> float:
        return (_accuracy(member) - _accuracy(first)) / height - math.log(member.flops / first.flops) / width

    return max(front, key=lambda member: (above(member), -member.flops))


def _best(front: list[Individual]) -> Individual:
    return max(front, key=lambda individual: (_accuracy(individual), -individual.flops))


def _accuracy(individual: Individual) -> float:
    return individual.outcome.accuracy or 0.0


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise LineageError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise LineageError(f"{path} is damaged: {error}") from None
