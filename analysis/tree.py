"""The family tree of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from msgspec import Struct
from numpy.typing import NDArray

from analysis.common import ACCENT, GREY, INK, PALE, SEQUENTIAL, as_array, format_percent, styled
from analysis.layout import FamilyPlaces, place_family
from analysis.table import draw_heading, text_width

TOP, BOTTOM, LEFT, RIGHT, LABEL = 1.25, 0.6, 0.4, 1.3, 0.24
"""Inches around the tree, and for each survivor's label."""


class Member(Struct, frozen=True):
    """One individual of the tree.

    Attributes:
        id: Its id.
        parent: Its parent's id.
        generation: Generation of birth.
        mutation: What made it out of its parent.
        accuracy: Validation accuracy, where it was measured.
        survives: Whether it belongs to the last population.
        founds: Whether it, or a descendant of it, belongs to the last population.
    """

    id: int
    parent: int | None
    generation: int
    mutation: str
    accuracy: float | None
    survives: bool
    founds: bool


@styled
def draw_tree(name: str, members: Sequence[Member], last_generation: int, line: set[int]) -> Figure:
    """Draws generations from left to right, colour for accuracy, survivors' lines in front.

    Args:
        name: Name of the run.
        members: Everyone.
        last_generation: Where survivors' lines end.
        line: Ids of the line of descent to pick out.
    """
    survivors = [member.id for member in members if member.survives]
    slot = min(0.16, max(0.006, (9 - LABEL * len(survivors)) / len(members)))
    places = place_family({member.id: member.parent for member in members}, survivors, LABEL / slot)
    end = max(last_generation, 1)
    width, height = min(max(1.4 * end, 7.5), 16), max(slot * places.total, 1.0)
    figure = Figure(figsize=(LEFT + width + RIGHT, TOP + height + BOTTOM))
    axes = _add_axes(figure, LEFT, BOTTOM, width, height)
    axes.set(xlim=(0, end), ylim=(places.total, 0), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20, min_n_ticks=1))
    axes.set_xlabel("generation")
    _draw_lives(axes, members, places, end, line)
    scale = _draw_dots(axes, members, places)
    _label_survivors(axes, members, places, end, line)
    _label_mutations(axes, members, places, (width / end, height / places.total))
    _draw_heading(figure, name, members, scale)
    return figure


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _draw_heading(figure: Figure, name: str, members: Sequence[Member], scale: ScalarMappable) -> None:
    width, height = figure.get_size_inches()
    ended = sum(member.accuracy is None for member in members)
    survivors = sum(member.survives for member in members)
    facts = f"{len(members):,} individuals, {survivors} survive (dark lines), {ended} ended early (crosses)"
    legend = "orange: the line told step by step;  -4 conv1: prune 4 units of conv1;  +4: split"
    page = _add_axes(figure, 0, 0, width, height)
    page.set(xlim=(0, width), ylim=(height, 0))
    page.set_axis_off()
    draw_heading(page, (f"{name}: family tree", facts, legend))
    bar = _add_axes(figure, width - 2.6, height - 0.5, 2.2, 0.1)
    colours = figure.colorbar(scale, cax=bar, orientation="horizontal", extend="min")
    colours.formatter = PercentFormatter(1.0)
    colours.outline.set_visible(False)
    colours.locator = MaxNLocator(4)
    bar.set_title("validation accuracy", fontsize=9)


def _draw_lives(
    axes: Axes, members: Sequence[Member], places: FamilyPlaces, end: int, line: set[int]
) -> None:
    """One line from each parent to its child, and one from each survivor to the end."""
    born = {member.id: (member.generation, places.heights[member.id]) for member in members}
    styles: dict[tuple[str, float], list[NDArray[np.float64]]] = {
        (PALE, 0.6): [],
        (INK, 1.2): [],
        (ACCENT, 2.2): [],
    }
    faint, dark, chosen = styles.values()
    for member in members:
        kind = chosen if member.id in line else dark if member.founds else faint
        if member.parent is not None:
            kind.append(_life(born[member.parent], born[member.id]))
        if member.survives:
            kind = chosen if member.id == max(line) else dark
            kind.append(_life(born[member.id], (end, places.ends[member.id])))
    for order, ((colour, width), lives) in enumerate(styles.items()):
        axes.add_collection(
            LineCollection(lives, colors=colour, linewidths=width, zorder=1 + 0.1 * order, clip_on=False)
        )


def _life(start: tuple[float, float], end: tuple[float, float]) -> NDArray[np.float64]:
    """A line that bends to the end's height within half a generation and goes on level."""
    t = np.linspace(0, 1, 12)
    x = start[0] + min(0.5, max(end[0] - start[0], 0)) * t
    y = start[1] + (end[1] - start[1]) * t * t * (3 - 2 * t)
    return np.array([*zip(x, y, strict=True), end])


def _draw_dots(axes: Axes, members: Sequence[Member], places: FamilyPlaces) -> ScalarMappable:
    """Everyone at birth, coloured by accuracy; crosses for those without one."""
    accuracy = as_array([member.accuracy for member in members])
    known = ~np.isnan(accuracy)
    low, high = np.quantile(accuracy[known], [0.1, 1]) if known.any() else (0.0, 1.0)
    scale = ScalarMappable(Normalize(low, max(high, low + 1e-3)), SEQUENTIAL)
    x = np.array([member.generation for member in members], dtype=float)
    y = np.array([places.heights[member.id] for member in members])
    large = 40.0 if len(members) < 150 else 20.0
    size = np.array([large if member.founds else large / 3 for member in members])
    axes.scatter(
        x[known],
        y[known],
        s=size[known],
        c=scale.to_rgba(accuracy[known]),
        linewidths=0,
        zorder=3,
        clip_on=False,
    )
    axes.scatter(
        x[~known], y[~known], s=large / 2, c=GREY, marker="x", linewidths=0.7, zorder=2, clip_on=False
    )
    return scale


def _label_survivors(
    axes: Axes, members: Sequence[Member], places: FamilyPlaces, end: int, line: set[int]
) -> None:
    for member in members:
        if member.survives:
            axes.annotate(
                f"#{member.id}  {format_percent(member.accuracy)}",
                (end, places.ends[member.id]),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=ACCENT if member.id == max(line) else INK,
                annotation_clip=False,
            )


def _label_mutations(
    axes: Axes, members: Sequence[Member], places: FamilyPlaces, inches: tuple[float, float]
) -> None:
    """Labels the steps of survivors' lines above the line, wherever the text finds room of its own.

    Args:
        axes: The tree.
        members: Everyone.
        places: Where they are.
        inches: Inches for one generation, and for one unit of height.
    """
    generations = {member.id: member.generation for member in members}
    taken: list[tuple[float, float, float]] = []  # left, right, line: in inches
    for member in members:
        if member.parent is None or not member.founds:
            continue
        text = _shorten(member.mutation)
        right = member.generation * inches[0] - 0.06
        left, y = right - text_width(text), places.heights[member.id] * inches[1]
        room = left > (generations[member.parent] + 0.4) * inches[0]
        if room and all(left > r or right < le or abs(y - other) > 0.17 for le, r, other in taken):
            taken.append((left, right, y))
            axes.text(
                right / inches[0],
                (y - 0.03) / inches[1],
                text,
                fontsize=9,
                ha="right",
                va="bottom",
                zorder=4,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )


def _shorten(mutation: str) -> str:
    """The mutation in as few signs as possible."""
    for long, short in (
        ("prune layer ", "-"),
        ("insert layer after ", "+ after "),
        ("prune ", "-"),
        ("split ", "+"),
        (" of ", " "),
    ):
        mutation = mutation.replace(long, short)
    return mutation
