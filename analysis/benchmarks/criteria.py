"""Which criterion knows best what removing a unit costs, and what does it take to ask?

    python -m analysis.benchmarks.criteria --preset fashion-mnist

Trains the preset's founder, removes each of its units alone and measures the loss ("brute force"), then lets
every criterion rank the same units, of all layers together, on the same training examples.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from analysis.benchmarks.criteria_report import CriteriaInfo, CriterionInfo, criteria_table, draw_criteria
from analysis.benchmarks.machine import this_machine
from analysis.benchmarks.subject import Subject, trained_network
from analysis.common import run_command, save_figure
from analysis.ranks import spearman
from evo_topo.curvature import Curvature
from evo_topo.datasets import DatasetError, load_dataset
from evo_topo.evaluation import evaluate
from evo_topo.saliency import (
    LabelGradients,
    apoz,
    brute_force,
    cascade,
    gate_statistics,
    magnitude,
    norm_scale,
    obd_saliency,
)
from evo_topo.training_end import Diverged
from populations.config import PresetName
from populations.presets import PRESETS

PROG = "python -m analysis.benchmarks.criteria"
UnitScores = dict[str, Tensor]


def _ggn(subject: Subject, curvature: Curvature) -> UnitScores:
    """OBD without its first-order term."""
    statistics = gate_statistics(*subject, curvature)
    return {name: (statistics.alone - statistics.gradient)[at] for name, at in statistics.columns.items()}


def _place_in_cascade(subject: Subject, shortlist: float) -> UnitScores:
    """The place of each unit in the order that the cascade ends with."""
    ranked = cascade(*subject, shortlist)
    place = {(item.group, item.unit): float(number) for number, item in enumerate(ranked)}
    return {
        name: torch.tensor([place[name, unit] for unit in range(len(norms))])
        for name, norms in magnitude(subject.model, subject.genome).items()
    }


CRITERIA: dict[str, Callable[[Subject], UnitScores]] = {
    "OBD, exact": lambda s: obd_saliency(*s, "exact"),
    "OBD, sampled": lambda s: obd_saliency(*s, "sampled"),
    "GGN term alone, exact": lambda s: _ggn(s, "exact"),
    "GGN term alone, sampled": lambda s: _ggn(s, "sampled"),
    "cascade, half of the units to OBD": lambda s: _place_in_cascade(s, shortlist=0.5),
    "cascade, all units to OBD": lambda s: _place_in_cascade(s, shortlist=1),
    "empirical Fisher": lambda s: LabelGradients(*s).empirical_fisher,
    "Taylor, mean |gradient x activation|": lambda s: LabelGradients(*s).taylor,
    "Taylor, |mean gradient x activation|": lambda s: LabelGradients(*s).mean_taylor,
    "weight magnitude": lambda s: magnitude(s.model, s.genome),
    "BatchNorm scale": lambda s: norm_scale(s.model, s.genome),
    "APoZ": lambda s: apoz(s.model, s.genome, s.inputs),
}
"""Each gives, per unit group, a number per unit: the larger, the more it is worth."""


def criteria_info(subject: Subject, preset: str, seed: int, accuracy: float) -> CriteriaInfo:
    """Measures every unit by brute force, then every criterion against that."""
    truth, brute_seconds = _timed(lambda s: brute_force(s.model, s.genome, s.inputs, s.targets), subject)
    units = [(group, unit) for group, losses in truth.items() for unit in range(len(losses))]
    measured = [truth[group][unit].item() for group, unit in units]
    criteria = []
    few = subject._replace(inputs=subject.inputs[:8], targets=subject.targets[:8])
    for name, criterion in CRITERIA.items():
        criterion(few)  # the first call of anything is slow
        scores, seconds = _timed(criterion, subject)
        correlation = spearman([scores[group][unit].item() for group, unit in units], measured)
        criteria.append(CriterionInfo(name, correlation, seconds, seconds / brute_seconds))
    criteria.sort(key=lambda item: -2.0 if item.spearman is None else item.spearman, reverse=True)
    return CriteriaInfo(
        preset, seed, accuracy, len(measured), len(subject.inputs), brute_seconds, this_machine(), criteria
    )


def _timed(criterion: Callable[[Subject], UnitScores], subject: Subject) -> tuple[UnitScores, float]:
    """The scores and the seconds they took."""
    started = time.perf_counter()
    scores = criterion(subject)
    return scores, time.perf_counter() - started


def main(
    preset: PresetName = "fashion-mnist",
    examples: int = 2000,
    training_examples: int = 240_000,
    seed: int = 0,
    data_dir: Path | None = None,
    weights: Path | None = None,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Compares the criteria that rank units.

    Args:
        preset: Whose founder is trained, on whose data.
        examples: Training examples on which units are removed and judged.
        training_examples: Examples that the founder sees, counted with repetition.
        seed: Decides its first weights and its batches.
        data_dir: Folder to look for the data in first.
        weights: Safetensors file of the trained founder: read where it exists, otherwise written.
        out: Folder for criteria.json; the figure goes to its `figures`.
    """
    if examples < 1:
        raise ValueError(f"examples: expected at least 1, got {examples}")
    task = load_dataset(preset, data_dir)
    genome, recipe = PRESETS[preset].founder(), PRESETS[preset].config.recipe
    recipe = dataclasses.replace(recipe, examples=training_examples)
    model = trained_network(genome, task, recipe, seed, weights)
    accuracy = evaluate(model, task.validation, task).accuracy
    print(f"validation accuracy {accuracy:.1%}; now removing every unit in turn", flush=True)
    inputs, targets = (tensor[:examples] for tensor in task.train)
    info = criteria_info(Subject(model, genome, task.normalise(inputs), targets), preset, seed, accuracy)
    print(criteria_table(info))
    out.mkdir(parents=True, exist_ok=True)
    (out / "criteria.json").write_bytes(msgspec.json.format(msgspec.json.encode(info)))
    save_figure(draw_criteria(info), out, "criteria")


def command(args: Sequence[str] | None = None) -> None:
    """The command line."""
    run_command(main, PROG, args, (DatasetError, Diverged, OSError, ValueError))


if __name__ == "__main__":
    command()
