"""One figure for each data set and length: accuracy against MACs, and hypervolume over wall-clock."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from analysis.benchmarks.peers.cells import Record
from analysis.benchmarks.peers.report import BUDGETS, accuracy_within, hypervolume_over_time
from analysis.common import CATEGORIES, format_count, styled

SHOWN = 0.85
"""Least share of the best final hypervolume that the axis of hypervolumes begins with."""


@styled
def draw_peers(records: Sequence[Record]) -> Figure:
    """Draws the cells of one data set and length, one colour per method.

    Args:
        records: At least one.
    """
    cell = records[0].cell
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    methods = dict.fromkeys(r.cell.method for r in records)
    looks = product(("-", "--"), CATEGORIES)  # dashes where there are more methods than colours
    for method, (line, colour) in zip(methods, looks, strict=False):
        some = [r for r in records if r.cell.method == method]
        _draw_accuracies(left, some, colour, line)
        _draw_hypervolumes(right, some, colour, line)
    seeds = len({r.cell.seed for r in records})
    left.set_title(f"{cell.data}, {cell.minutes:g} min: test accuracy for compute", weight="bold")
    left.set_xscale("log")
    least = min([p.macs for r in records for p in r.reported], default=BUDGETS[cell.data][0])
    left.set_xlim(0.7 * min(least, BUDGETS[cell.data][0]), 1.3 * records[0].founder_macs)
    left.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_xlabel(
        "MACs for one example (log scale)\nlines: mean over seeds within a budget; dots: networks"
    )
    left.set_ylabel("test accuracy")
    right.set_title("Hypervolume of all measured networks", weight="bold")
    right.set_xlabel(f"seconds since the start\nmean of {seeds} seed{'s' * (seeds > 1)}, range shaded")
    right.set_ylabel("hypervolume by validation accuracy\n(reference point: accuracy 0, founder's MACs)")
    _begin_axes(left, right, records)
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    return figure


def _draw_accuracies(axes: Axes, records: Sequence[Record], colour: str, line: str) -> None:
    """Dots for every reported network, a line through the means at the budgets that all seeds can fill."""
    dots = [(p.macs, p.test_accuracy) for r in records for p in r.reported]
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4, alpha=0.35, markeredgewidth=0)
    means = []
    for budget in BUDGETS[records[0].cell.data]:
        found = [accuracy_within(budget, r.reported) for r in records]
        values = [value for value in found if value is not None]
        if len(values) == len(records):
            means.append((budget, statistics.fmean(values)))
    if means:
        axes.plot(*zip(*means, strict=True), line, marker="D", color=colour, linewidth=1.5, markersize=6)


def _draw_hypervolumes(axes: Axes, records: Sequence[Record], colour: str, line: str) -> None:
    """The mean over seeds as a step, and the range."""
    method = records[0].cell.method
    curves = [hypervolume_over_time(record) for record in records]
    times = sorted({seconds for curve in curves for seconds, _ in curve} | {max(r.seconds for r in records)})
    values = np.array([[_at(curve, seconds) for seconds in times] for curve in curves])
    axes.step(times, values.mean(0), line, where="post", color=colour, linewidth=1.6, label=method)
    axes.fill_between(times, values.min(0), values.max(0), step="post", color=colour, alpha=0.15, linewidth=0)


def _at(curve: Sequence[tuple[float, float]], seconds: float) -> float:
    return curve[bisect_right(curve, seconds, key=lambda point: point[0]) - 1][1]


def _begin_axes(left: Axes, right: Axes, records: Sequence[Record]) -> None:
    """Begins the axes where methods differ: what lies far below would press them together."""
    dots = [p.test_accuracy for r in records for p in r.reported if p.test_accuracy is not None]
    if dots:
        bottom, top = np.quantile(dots, 0.1), max(dots)
        margin = 0.1 * (top - bottom) + 1e-3
        left.set_ylim(bottom - 3 * margin, top + margin)
    best = max(hypervolume_over_time(record)[-1][1] for record in records)
    right.set_ylim(SHOWN * best, 1.02 * best)
    right.set_xlim(0, None)
