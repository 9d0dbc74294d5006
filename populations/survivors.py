"""The survivors of a finished run: picking one, and exporting it with a model card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from evo_topo.cost import activation_bytes
from evo_topo.exporting import ONNX, PT2, SOURCE, WEIGHTS, Exported, export
from evo_topo.genome import Genome
from evo_topo.phenotype import build
from evo_topo.task import Task
from populations.config import ConfigError
from populations.individual import Individual
from populations.lineage import LineageError, line_of_descent, load_run
from populations.orders import weights_path
from populations.weights import load_weights

TASK = "task.json"
FRONT = "front.json"
CARD = "README.md"
SETTINGS = "config.json"


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


def task_record(task: Task) -> str:
    """What an exported network must tell of its data, as JSON text."""
    record = {
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


def knee(front: list[Individual]) -> Individual:
    """The member furthest above the line between the ends of the front, in accuracy against log FLOPs."""
    first, last = (pick(front, key=lambda i: i.flops) for pick in (min, max))
    width = math.log(last.flops / first.flops) or 1.0
    height = (_accuracy(last) - _accuracy(first)) or 1.0

    def above(member: Individual) -> float:
        return (_accuracy(member) - _accuracy(first)) / height - math.log(member.flops / first.flops) / width

    return max(front, key=lambda member: (above(member), -member.flops))


def export_survivor(run_dir: Path, pick: str, folder: Path, onnx: bool | None = None) -> Exported:
    """Exports a network of a finished run, with a model card.

    Args:
        run_dir: The run folder.
        pick: ``best``, ``knee`` or an id.
        folder: Where to; the layout is that of a model hub.
        onnx: Whether to write ONNX; None writes it where its packages are installed.

    Raises:
        ConfigError: When there is no such network.
        LineageError: When the run is damaged.
        WeightsError: When the weights are damaged.
        ExportError: When a written form does not compute what the network does.
    """
    survivor = find_survivor(run_dir, pick)
    model = build(survivor.genome)
    load_weights(model, survivor.weights, survivor.individual.outcome.weights_sha256)
    exported = export(survivor.genome, model, folder, onnx)
    settings = {"model_type": "evo_topo", **(survivor.task or {"input_shape": survivor.genome.input_shape})}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
    (folder / CARD).write_text(model_card(survivor, exported))
    return exported


def model_card(survivor: Survivor, exported: Exported) -> str:
    """The README of an exported network: data, accuracy, cost, lineage, use."""
    one, genome, task = survivor.individual, survivor.genome, survivor.task
    name = task.get("name", "unknown data")
    shape = " x ".join(map(str, genome.input_shape))
    test = "not measured" if survivor.test_accuracy is None else f"{survivor.test_accuracy:.4f}"
    scaled = (
        f"Inputs are normalised per channel: mean {_numbers(task['mean'])}, "
        f"standard deviation {_numbers(task['std'])} of the raw values."
        if task
        else "How inputs were normalised is not recorded."
    )
    checked = [f"| `{form}` | {error:.1e} |" for form, error in exported.errors.items()]
    left_out = [f"`{form}` is left out: {why}.\n" for form, why in exported.left_out.items()]
    steps = [f"| {i.id} | {i.generation} | {_edit(i)} | {i.flops:,} | {_percent(i)} |" for i in survivor.line]
    return f"""---
library_name: evo_topo
tags:
- evo_topo
- neuroevolution
datasets:
- {name}
metrics:
- accuracy
---

# {name}, network {one.id}

A network that evolved from a founder by prunes and growth, trained on {name}.

## Data

{name}: inputs {shape}, {genome.num_classes} classes. {scaled}

## Accuracy

| split | accuracy |
|---|---|
| validation | {one.outcome.accuracy or 0:.4f} |
| test, read once | {test} |

## Cost

| | |
|---|---|
| parameters | {one.params:,} |
| MACs per example | {one.macs:,} |
| FLOPs per example (2 x MACs) | {one.flops:,} |
| activations, float32 | {activation_bytes(genome):,} bytes |

## Lineage

| id | generation | edit | FLOPs | validation accuracy |
|---|---|---|---|---|
{chr(10).join(steps)}

Its line saw {one.total_examples:,} training examples.

## Use

```python
from model import load  # {SOURCE}; needs nothing but torch

logits = load()(inputs)  # normalised float32 inputs (batch, {", ".join(map(str, genome.input_shape))})
```

`{PT2}` is read by `torch.export.load`, `{ONNX}` by onnxruntime (input `input`, output `logits`), `{WEIGHTS}`
by safetensors. Largest relative error of each form against the network, at two batch sizes:

| form | error |
|---|---|
{chr(10).join(checked)}

{"".join(left_out)}"""


def _best(front: list[Individual]) -> Individual:
    return max(front, key=lambda individual: (_accuracy(individual), -individual.flops))


def _accuracy(individual: Individual) -> float:
    return individual.outcome.accuracy or 0.0


def _edit(individual: Individual) -> str:
    if individual.edit is not None:
        return individual.edit.describe()
    return "founder" if individual.parent is None else "trained on"


def _percent(individual: Individual) -> str:
    return f"{_accuracy(individual):.4f}"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LineageError(f"{path} is damaged: {error}") from None
