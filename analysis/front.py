"""The Pareto front of a run, accuracy against FLOPs, and its hypervolume over generations.

    python -m analysis.front RUN

The hypervolume of a population is the area that it dominates, with the reference point at accuracy 0 and
the founder's FLOPs. FLOPs are counted linearly, in units of the founder's: so the number lies between 0
and 1, and is the accuracy reached within a budget of FLOPs, averaged over all budgets below the founder's.
(On a logarithmic scale the area would have no natural end on the left.) Networks with more FLOPs than the
founder add nothing, and the founder alone scores 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from msgspec import Struct

from analysis.common import (
    ACCENT,
    GREY,
    INK,
    SEQUENTIAL,
    JsonFlag,
    Measured,
    Run,
    RunFolder,
    format_count,
    open_run,
    print_json,
    read_json,
    run_command,
    save_figure,
    styled,
)
from populations.records import LineageError


class Point(Struct, frozen=True):
    """One measured individual: id, generation of birth, validation accuracy, FLOPs for one example."""

    id: int
    generation: int
    accuracy: float
    flops: int


class FrontInfo(Struct, frozen=True):
    """The numbers behind the figure.

    Attributes:
        run: Name of the run folder.
        individuals: Everyone ever measured.
        front: The front that the run ended with, or of the last population, by FLOPs.
        founder: The founder, where it was measured.
        trained_founder: The founder trained on as many examples as the front, where it was measured.
        generations: Numbers of the finished generations.
        hypervolumes: Hypervolume of the population that survived each of them.
    """

    run: str
    individuals: list[Point]
    front: list[Measured]
    founder: Point | None
    trained_founder: Measured | None
    generations: list[int]
    hypervolumes: list[float]


def front_info(run: Run) -> FrontInfo:
    """Computes the front and the hypervolumes of a run.

    Raises:
        LineageError: When no generation is finished, nobody was measured, or a file of the run is damaged.
    """
    if not run.populations:
        raise LineageError(f"{run.folder} has no finished generation yet")
    points = {
        i.id: Point(i.id, i.generation, i.outcome.accuracy, i.flops)
        for i in run.individuals
        if i.outcome.accuracy is not None
    }
    if not points:
        raise LineageError(f"{run.folder} holds no individual whose accuracy was measured")
    populations = {g: [points[i] for i in ids if i in points] for g, ids in run.populations.items()}
    final = read_json(run.folder / "front.json", list[Measured])
    if final is None:
        last = populations[max(populations)]
        final = pareto_front(Measured(p.id, p.accuracy, p.flops) for p in last)
    return FrontInfo(
        run=run.folder.resolve().name,
        individuals=list(points.values()),
        front=sorted(final, key=lambda point: point.flops),
        founder=points.get(run.founder.id),
        trained_founder=read_json(run.folder / "founder.json", Measured),
        generations=sorted(populations),
        hypervolumes=[hypervolume(populations[g], run.founder.flops) for g in sorted(populations)],
    )


def pareto_front(points: Iterable[Measured]) -> list[Measured]:
    """The points that no other beats in accuracy or FLOPs without losing in the other; by FLOPs."""
    front: list[Measured] = []
    for point in sorted(points, key=lambda p: (p.flops, -p.accuracy, p.id)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
        elif (point.accuracy, point.flops) == (front[-1].accuracy, front[-1].flops):
            front.append(point)  # equal points do not beat each other
    return front


def hypervolume(points: Iterable[Point], founder_flops: int) -> float:
    """The area that points dominate, from accuracy 0 and the founder's FLOPs; between 0 and 1.

    Args:
        points: Accuracies and FLOPs, in any order.
        founder_flops: The unit of FLOPs; larger networks add nothing.
    """
    area, best = 0.0, 0.0
    for point in sorted(points, key=lambda p: p.flops):
        if point.flops < founder_flops and point.accuracy > best:
            area += (point.accuracy - best) * (1 - point.flops / founder_flops)
            best = point.accuracy
    return area


@styled
def draw_front(info: FrontInfo) -> Figure:
    """Draws the front and, beside it, the hypervolume over generations."""
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.8, 1))
    _draw_individuals(left, info)
    _draw_final_front(left, info)
    left.set_title(f"{info.run}: accuracy for compute", weight="bold")
    figure.legend(frameon=False, loc="outside lower left", ncols=3)
    right.plot(info.generations, info.hypervolumes, color=INK, marker="o", markersize=3, linewidth=1.5)
    last = (info.generations[-1], info.hypervolumes[-1])
    right.annotate(f"{last[1]:.3f}", last, (0, 7), textcoords="offset points", ha="center", va="bottom")
    right.set_title("Hypervolume of the population", weight="bold")
    right.set_xlabel("generation\n(reference point: accuracy 0, founder's FLOPs)")
    right.set_ylabel("hypervolume (linear in FLOPs)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    right.set_ylim(0, min(1.0, max(1.15 * max(info.hypervolumes), 0.1)))
    right.margins(x=0.06)
    return figure


def _draw_individuals(axes: Axes, info: FrontInfo) -> None:
    """Everyone as faint dots; the few far below the rest are counted, not shown."""
    x, y, generations = (
        np.array([[p.flops, p.accuracy, p.generation] for p in info.individuals]).reshape(-1, 3).T
    )
    size = 14 if len(x) < 300 else 8
    norm = Normalize(0, max(info.generations[-1], 1))
    axes.scatter(x, y, c=generations, norm=norm, cmap=SEQUENTIAL, s=size, alpha=0.45, linewidths=0)
    scale = ScalarMappable(norm, SEQUENTIAL)
    colours = axes.figure.colorbar(scale, ax=axes, aspect=40, pad=0.01, ticks=MaxNLocator(6, integer=True))
    colours.set_label("generation of birth")
    colours.outline.set_visible(False)
    marked = [p.accuracy for p in (*info.front, info.founder, info.trained_founder) if p is not None]
    bottom, top = min([*marked, np.quantile(y, 0.05)]), max([*marked, *y])
    margin = 0.08 * max(top - bottom, 0.01)
    axes.set_ylim(bottom - margin, top + 1.6 * margin)
    if hidden := int((y < bottom - margin).sum()):
        note = f"{hidden} of {len(y):,} lie below"
        axes.text(0.01, 0.01, note, transform=axes.transAxes, color=GREY, fontsize=9)
    axes.set_xscale("log")
    axes.margins(x=0.09)
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5) if x.max() < 300 * x.min() else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("FLOPs for one example (log scale)")
    axes.set_ylabel("validation accuracy")


def _draw_final_front(axes: Axes, info: FrontInfo) -> None:
    x, y = [p.flops for p in info.front], [p.accuracy for p in info.front]
    axes.step(x, list(accumulate(y, max)), where="post", color=INK, linewidth=1.2)
    axes.plot(x, y, "o", color=INK, markersize=5, label="final front (#id), chosen by smoothed accuracy")
    _label_front(axes, info.front)
    if info.founder is not None:
        _mark(axes, info.founder, ACCENT, "founder")
    if (trained := info.trained_founder) is not None:
        long = "equally" if trained.examples is None else f"on {format_count(trained.examples)} examples"
        _mark(axes, trained, "white", f"founder trained {long}")


def _mark(axes: Axes, point: Point | Measured, fill: str, label: str) -> None:
    axes.plot(
        point.flops,
        point.accuracy,
        "D",
        color=ACCENT,
        markerfacecolor=fill,
        markersize=8,
        markeredgewidth=1.8,
        label=label,
    )


def _label_front(axes: Axes, front: list[Measured]) -> None:
    """Ids above and to the left of the points, where nothing beats them; only where there is room."""
    taken: tuple[float, float] | None = None
    points_per_pixel = 72 / axes.figure.dpi
    for point in reversed(front):
        x, y = axes.transData.transform((point.flops, point.accuracy)) * points_per_pixel
        if taken is None or taken[0] - x > 40 or taken[1] - y > 12:
            axes.annotate(
                f"#{point.id}",
                (point.flops, point.accuracy),
                (-3, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=9,
            )
            taken = (x, y)


def main(run: RunFolder, json: JsonFlag = False) -> None:
    """Draws the Pareto front of a run and its hypervolume over generations."""
    info = front_info(open_run(run))
    if json:
        print_json(info)
    else:
        save_figure(draw_front(info), run, "front")


if __name__ == "__main__":
    run_command(main, "python -m analysis.front")
