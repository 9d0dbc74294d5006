"""What the benchmark of criteria shows: how well each ranks units, and what it costs."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from msgspec import Struct

from analysis.benchmarks.machine import Machine
from analysis.common import ACCENT, GREY, PALE, styled
from analysis.table import format_table


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


def criteria_table(info: CriteriaInfo) -> str:
    """The numbers as text, best criterion first."""
    rows = [("criterion", "Spearman", "seconds", "cost / brute force")]
    for item in info.criteria:
        rows.append((item.name, _signed(item.spearman), f"{item.seconds:.3g}", f"{item.cost:.2g}"))
    rows.append(("brute force", "+1", f"{info.brute_force_seconds:.3g}", "1"))
    return "\n".join([*_facts(info), "", format_table(rows, right=(1, 2, 3))])


def _facts(info: CriteriaInfo) -> tuple[str, str]:
    """What was measured on what, in two lines."""
    return (
        f"founder of {info.preset}, seed {info.seed}, validation accuracy {info.accuracy:.1%}: "
        f"{info.units} units, {info.examples:,} training examples",
        f"{info.machine.cpu}, threads: {info.machine.threads}, torch {info.machine.torch}",
    )


def _signed(value: float | None) -> str:
    """A rank correlation as text."""
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
