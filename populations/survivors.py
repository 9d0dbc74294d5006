"""The survivors of a finished run, and picking one of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from evo_topo.genome import Genome
from evo_topo.task import Task
from populations.config import ConfigError
from populations.individual import Individual
from populations.lineage import line_of_descent, load_run
from populations.orders import weights_path
from populations.records import LineageError

TASK = "task.json"
FRONT = "front.json"


class Survivor(NamedTuple):
    """One network of a run, with all that is known of it.

    Attributes:
        individual: Its record in the lineage.
        line: Its line of descent, founder first.
        test_accuracy: Accuracy on the test split; None for one that is not on the front.
        weights: Where its weights are.
        task: Name, input shape, classes, mean and standard deviation of the data.
    """

    individual: Individual
    line: list[Individual]
    test_accuracy: float | None
    weights: Path
    task: dict[str, Any]

    @property
    def genome(self) -> Genome:
        """The network as data."""
        return self.individual.genome


def task_record(task: Task, is_own: bool) -> str:
    """What an exported network must tell of its data, as JSON text.

    Args:
        task: The data.
        is_own: Whether they are the user's own, which nobody can load again.
    """
    record = {
        "is_own": is_own,
        "name": task.name,
        "input_shape": task.input_shape,
        "num_classes": task.num_classes,
        "mean": task.mean.tolist(),
        "std": task.std.tolist(),
    }
    return json.dumps(record, indent=1) + "\n"


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
    front = _read_json(run_dir / FRONT) if (run_dir / FRONT).exists() else []
    try:
        measured = {int(entry["id"]): float(entry["test_accuracy"]) for entry in front}
        members = [individuals[id_] for id_ in measured]
    except (KeyError, TypeError, ValueError) as error:
        raise LineageError(f"{run_dir / FRONT} is damaged: {error!r}") from None
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
    task = _read_json(run_dir / TASK) if (run_dir / TASK).exists() else {}
    line = line_of_descent(list(individuals.values()), chosen.id)
    return Survivor(chosen, line, measured.get(chosen.id), weights, task)


def has_own_data(run_dir: Path) -> bool:
    """Whether a run is on the user's own data, rather than on those of its preset.

    Raises:
        LineageError: When its record of them is damaged.
    """
    record = _read_json(run_dir / TASK) if (run_dir / TASK).exists() else {}
    return bool(isinstance(record, dict) and record.get("is_own"))


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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LineageError(f"{path} is damaged: {error}") from None
