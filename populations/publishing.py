"""Publishing a survivor of a finished run: exported with a model card."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from evo_topo.cost import activation_bytes
from evo_topo.exporting import GENOME, ONNX, PT2, SOURCE, WEIGHTS, Exported, export
from evo_topo.phenotype import build
from populations.config import ConfigError
from populations.individual import Individual
from populations.lineage import DATABASE
from populations.survivors import Survivor, TaskRecord, find_survivor
from populations.weights import load_weights

CARD = "README.md"
SETTINGS = "config.json"
_TOLD = ("name", "input_shape", "num_classes", "mean", "std")

_CARD = f"""---
library_name: evo_topo
tags:
- evo_topo
- neuroevolution
datasets:
- {{name}}
metrics:
- accuracy
---

# {{name}}, network {{id}}

A network that evolved from a founder by prunes and growth, trained on {{name}}.

## Data

{{name}}: inputs {{shape}}, {{classes}} classes. {{scaled}}

## Accuracy

| split | accuracy |
|---|---|
| validation | {{accuracy:.4f}} |
| test, read once | {{test}} |

## Cost

| | |
|---|---|
| parameters | {{params:,}} |
| MACs per example | {{macs:,}} |
| FLOPs per example (2 x MACs) | {{flops:,}} |
| activations, float32 | {{activations:,}} bytes |

## Lineage

| id | generation | edit | FLOPs | validation accuracy |
|---|---|---|---|---|
{{lineage}}

Its line saw {{examples:,}} training examples.

## Use

```python
from model import load  # {SOURCE}; needs nothing but torch

logits = load()(inputs)  # normalised float32 inputs (batch, {{inputs}})
```

`{PT2}` is read by `torch.export.load`, `{ONNX}` by onnxruntime (input `input`, output `logits`), `{WEIGHTS}`
by safetensors. Largest relative error of each form against the network, at two batch sizes:

| form | error |
|---|---|
{{errors}}

{{left_out}}"""


def export_survivor(run_dir: Path, pick: str, folder: Path, onnx: bool | None = None) -> Exported:
    """Exports a network of a finished run, with a model card.

    Args:
        run_dir: The run folder.
        pick: ``best``, ``knee`` or an id.
        folder: Where to; the layout is that of a model hub.
        onnx: Whether to write ONNX; None writes it where its packages are installed.

    Raises:
        ConfigError: When there is no such network, or the folder holds other things.
        LineageError: When the run is damaged.
        WeightsError: When the weights are damaged.
        ExportError: When a written form does not compute what the network does.
    """
    survivor = find_survivor(run_dir, pick)
    _check_folder(folder)
    model = build(survivor.genome)
    load_weights(model, survivor.weights, survivor.individual.outcome.weights_sha256)
    exported = export(survivor.genome, model, folder, onnx)
    data = msgspec.structs.asdict(survivor.task)
    settings = {"model_type": "evo_topo", **{name: data[name] for name in _TOLD}}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
    (folder / CARD).write_text(model_card(survivor, exported))
    return exported


def model_card(survivor: Survivor, exported: Exported) -> str:
    """The README of an exported network: data, accuracy, cost, lineage, use."""
    one, genome, task = survivor.individual, survivor.genome, survivor.task
    steps = [
        f"| {i.id} | {i.generation} | {_edit(i)} | {i.flops:,} | {_accuracy(i):.4f} |" for i in survivor.line
    ]
    return _CARD.format(
        name=task.name,
        id=one.id,
        shape=" x ".join(map(str, genome.input_shape)),
        classes=genome.num_classes,
        scaled=_scaled(task),
        accuracy=_accuracy(one),
        test="not measured" if survivor.test_accuracy is None else f"{survivor.test_accuracy:.4f}",
        params=one.params,
        macs=one.macs,
        flops=one.flops,
        activations=activation_bytes(genome),
        lineage="\n".join(steps),
        examples=one.total_examples,
        inputs=", ".join(map(str, genome.input_shape)),
        errors="\n".join(f"| `{form}` | {error:.1e} |" for form, error in exported.errors.items()),
        left_out="\n".join(f"`{form}` is left out: {why}.\n" for form, why in exported.left_out.items()),
    )


def _check_folder(folder: Path) -> None:
    """Checks that nothing else than an earlier export would be written over.

    Raises:
        ConfigError: When the folder is a run's, or holds files of the same names.
    """
    if (folder / DATABASE).exists():
        raise ConfigError(f"to: expected a folder for the export, got the run folder {folder}; name another")
    if not (folder / GENOME).exists():
        for name in (CARD, SETTINGS, WEIGHTS, SOURCE, PT2, ONNX):
            if (folder / name).exists():
                raise ConfigError(f"to: {folder} holds a {name} of something else; name another folder")


def _scaled(task: TaskRecord) -> str:
    """How inputs must be normalised, in words."""
    return (
        f"Inputs are normalised per channel: mean {_numbers(task.mean)}, "
        f"standard deviation {_numbers(task.std)} of the raw values."
    )


def _accuracy(individual: Individual) -> float:
    return individual.outcome.accuracy or 0.0


def _edit(individual: Individual) -> str:
    if individual.edit is not None:
        return individual.edit.describe()
    return "founder" if individual.parent is None else "trained on"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
