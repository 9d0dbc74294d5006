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
from typing import NamedTuple

import msgspec
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from analysis.benchmarks.machine import Machine, this_machine
from analysis.calibration import spearman
from analysis.common import ACCENT, GREY, PALE, run_command, save_figure, styled
from analysis.table import format_table
from evo_topo.curvature import Curvature
from evo_topo.datasets import DatasetError, load_dataset
from evo_topo.evaluation import evaluate
from evo_topo.genome import Genome
from evo_topo.phenotype import build
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
from evo_topo.task import Task
from evo_topo.training import Diverged, train
from populations.config import PresetName
from populations.presets import PRESETS

PROG = "python -m analysis.benchmarks.criteria"
UnitScores = dict[str, Tensor]


class Subject(NamedTuple):
    """A trained network, and the examples on which its units are judged."""

    model: nn.Module
    genome: Genome
    inputs: Tensor
    targets: Tensor


class CriterionInfo(Struct, frozen=True):
    """How well one criterion does.

    Attributes:
        name: What it is called in the table.
        spearman: Rank correlation with the measured loss increases; None where it cannot be told.
        seconds: Wall-clock time for all units.
        cost: The same as a share of brute force.
    """

    name: str
    spearman: float | None
    seconds: float
    cost: float


class CriteriaInfo(Struct, frozen=True):
    """The numbers behind table and figure; criteria in descending order of rank correlation."""

    preset: str
    seed: int
    accuracy: float
    units: int
    examples: int
    brute_force_seconds: float
    machine: Machine
    criteria: list[CriterionInfo]


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


def trained_founder(
    preset: PresetName, task: Task, examples: int, seed: int, weights: Path | None
) -> tuple[Genome, nn.Module]:
    """The preset's founder network, trained by the preset's recipe or read from a file.

    Args:
        preset: Its name.
        task: The data set of that name.
        examples: Training examples it sees.
        seed: Decides its first weights and its batches.
        weights: A safetensors file: read where it exists, otherwise written after training.

    Raises:
        ValueError: When the file does not hold the weights of this network.
    """
    genome = PRESETS[preset].founder()
    model = build(genome, seed)
    if weights is not None and weights.exists():
        try:
            model.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights}: expected weights of the {preset} founder: {error}") from None
        return genome, model
    train(model, task, dataclasses.replace(PRESETS[preset].config.recipe, examples=examples), seed)
    if weights is not None:
        save_file(model.state_dict(), weights)
    return genome, model


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


def criteria_table(info: CriteriaInfo) -> str:
    """The numbers as text, best criterion first."""
    rows = [("criterion", "Spearman", "seconds", "cost / brute force")]
    for item in info.criteria:
        rows.append((item.name, _signed(item.spearman), f"{item.seconds:.3g}", f"{item.cost:.2g}"))
    rows.append(("brute force", "+1", f"{info.brute_force_seconds:.3g}", "1"))
    return "\n".join([*_facts(info), "", format_table(rows, right=(1, 2, 3))])


def _facts(info: CriteriaInfo) -> tuple[str, str]:
    return (
        f"founder of {info.preset}, seed {info.seed}, validation accuracy {info.accuracy:.1%}: "
        f"{info.units} units, {info.examples:,} training examples",
        f"{info.machine.cpu}, threads: {info.machine.threads}, torch {info.machine.torch}",
    )


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.3f}"


@styled
def draw_criteria(info: CriteriaInfo) -> Figure:
    """Draws rank correlation on the left, cost on the right, best criterion on top."""
    figure = Figure(figsize=(9.5, 0.32 * len(info.criteria) + 1.7), layout="constrained")
    quality, cost = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_quality(quality, [item.spearman for item in info.criteria])
    _draw_cost(cost, info)
    quality.set_yticks(range(len(info.criteria)), [item.name for item in info.criteria])
    quality.invert_yaxis()
    for axes in (quality, cost):
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    figure.suptitle("What is a unit worth?\n" + "\n".join(_facts(info)), fontsize=9, x=0.01, ha="left")
    return figure


def _draw_quality(axes: Axes, correlations: list[float | None]) -> None:
    """One bar each, with its number at the end."""
    lengths = [correlation or 0.0 for correlation in correlations]
    axes.barh(range(len(lengths)), lengths, height=0.7, color=PALE)
    for y, (length, correlation) in enumerate(zip(lengths, correlations, strict=True)):
        offset, side = (3, "left") if length >= 0 else (-3, "right")
        text = _signed(correlation)
        axes.annotate(text, (length, y), (offset, 0), "data", "offset points", ha=side, va="center", size=8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(min([0.0, *lengths]) - 0.25, 1.2)
    axes.set_xlabel("rank correlation with the measured loss increase")


def _draw_cost(axes: Axes, info: CriteriaInfo) -> None:
    """One dot each on a logarithmic axis, with its seconds; brute force is a dashed line."""
    axes.set_xscale("log")
    axes.scatter([item.cost for item in info.criteria], range(len(info.criteria)), color=ACCENT, zorder=2)
    for y, item in enumerate(info.criteria):
        text = f"{item.seconds:.2g} s"
        axes.annotate(text, (item.cost, y), (6, 0), "data", "offset points", va="center", size=8, color=GREY)
    axes.axvline(1, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlim(right=3)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"time as a share of brute force ({info.brute_force_seconds:.3g} s)")


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
        out: Folder for criteria.json and the figure.
    """
    task = load_dataset(preset, data_dir)
    genome, model = trained_founder(preset, task, training_examples, seed, weights)
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
