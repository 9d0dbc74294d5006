"""One genome of a run as a picture: each layer with its width, its cost and what it reads.

    python -m analysis.network RUN ID

A box is an operation together with the normalisation, activation and dropout that alone read it. Rows go
down along the longest path from the input, lanes follow branches, and arcs on the left skip rows.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve
from msgspec import Struct

from analysis.common import (
    GREY,
    INK,
    PALE,
    SEQUENTIAL,
    JsonFlag,
    Run,
    RunFolder,
    format_count,
    format_percent,
    open_run,
    print_json,
    run_command,
    save_figure,
    styled,
)
from analysis.layout import place_boxes, route
from analysis.table import GAP, ROW, draw_heading, draw_table
from evo_topo.cost import node_macs
from evo_topo.genome import Genome
from evo_topo.ops import Activation, Dropout, Input, Norm, Shape
from populations.individual import Individual
from populations.records import LineageError

NetworkId = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="ID", help="The individual's id, or the word founder."),
]

TOP, LEFT, WIDEST = 1.1, 1.2, 1.3
"""Inches: space for the heading, space for arcs, widest box."""


class Box(Struct, frozen=True):
    """One row of the picture.

    Attributes:
        name: Name of its first node.
        operation: Its operations, in words.
        shape: Output shape for one example.
        flops: FLOPs for one example.
        share: Its part of the network's FLOPs.
        inputs: Names of the boxes that it reads.
    """

    name: str
    operation: str
    shape: Shape
    flops: int
    share: float
    inputs: list[str]


class NetworkInfo(Struct, frozen=True):
    """The numbers behind the figure: the individual, and its boxes in topological order."""

    run: str
    id: int
    generation: int
    accuracy: float | None
    flops: int
    params: int
    boxes: list[Box]


def find_individual(run: Run, id: str) -> Individual:  # noqa: A002
    """The individual with an id, or the founder.

    Raises:
        LineageError: When there is none.
    """
    for individual in run.individuals:
        if id == str(individual.id) or (id == "founder" and individual is run.founder):
            return individual
    raise LineageError(
        f"there is no individual {id!r}; ids are 0 to {run.individuals[-1].id}, or the word founder"
    )


def network_info(run: Run, individual: Individual) -> NetworkInfo:
    """Folds an individual's genome into boxes and prices them."""
    return NetworkInfo(
        run=run.folder.resolve().name,
        id=individual.id,
        generation=individual.generation,
        accuracy=individual.outcome.accuracy,
        flops=individual.flops,
        params=individual.params,
        boxes=fold_boxes(individual.genome),
    )


def fold_boxes(genome: Genome) -> list[Box]:
    """The genome with every chain of norm, activation and dropout folded into what it alone reads."""
    head: dict[str, str] = {}
    words: dict[str, list[str]] = {}
    for node in genome.nodes:
        source = node.inputs[0] if node.inputs else node.name
        folds = (
            isinstance(node.op, Norm | Activation | Dropout)
            and len(genome.readers[source]) == 1
            and not isinstance(genome.by_name[source].op, Input)
        )
        head[node.name] = head[source] if folds else node.name
        words.setdefault(head[node.name], []).append(node.op.describe())
    macs, total = node_macs(genome), sum(node_macs(genome).values())
    return [
        Box(
            name=name,
            operation=" + ".join(operations),
            shape=genome.shapes[name],
            flops=2 * macs[name],
            share=macs[name] / total,
            inputs=list(dict.fromkeys(head[source] for source in genome.by_name[name].inputs)),
        )
        for name, operations in words.items()
    ]


@styled
def draw_network(info: NetworkInfo) -> Figure:
    """Draws the boxes in their lanes, the connections, and a table beside them."""
    places = place_boxes({box.name: box.inputs for box in info.boxes})
    boxes = sorted(info.boxes, key=lambda box: places[box.name].row)
    lanes = 1 + max(place.lane for place in places.values())
    pitch = min(WIDEST + GAP, 5.0 / lanes)
    scale = 0.85 * pitch / sqrt(max(box.shape[0] for box in boxes))
    most = max(box.share for box in boxes)
    centres = {
        name: (LEFT + pitch * (place.lane + 0.5), TOP + ROW * (place.row + 0.5))
        for name, place in places.items()
    }
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    table = LEFT + pitch * lanes + GAP
    width = max(
        draw_heading(axes, _heading(info)), draw_table(axes, _rows(boxes), (3,), table, TOP + ROW / 2)
    )
    for box in boxes:
        (x, y), wide = centres[box.name], max(scale * sqrt(box.shape[0]), 0.06)
        colour = SEQUENTIAL(box.share / most) if box.flops else "white"
        axes.hlines(y, x, table - GAP / 2, color=PALE, linewidth=0.6, zorder=0)
        axes.add_patch(
            Rectangle((x - wide / 2, y - 0.09), wide, 0.18, facecolor=colour, edgecolor=GREY, zorder=3)
        )
        for source in box.inputs:
            _connect(axes, route(places, source, box.name), centres[source], centres[box.name])
    size = width + GAP, TOP + ROW * len(boxes) + GAP
    figure.set_size_inches(*size)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.set_axis_off()
    return figure


def _heading(info: NetworkInfo) -> list[str]:
    accuracy = "not measured" if info.accuracy is None else format_percent(info.accuracy)
    return [
        f"{info.run}: individual {info.id}" + (" (founder)" if info.id == 0 else ""),
        f"generation {info.generation},  accuracy {accuracy},  {format_count(info.flops)} FLOPs,  "
        f"{format_count(info.params)} parameters",
        "box: width by channels (square root), darker with more of the FLOPs",
    ]


def _rows(boxes: list[Box]) -> list[list[str]]:
    return [["layer", "operation", "output", "of FLOPs"]] + [
        [box.name, box.operation, " x ".join(map(str, box.shape)), _share_text(box)] for box in boxes
    ]


def _share_text(box: Box) -> str:
    return "< 0.1 %" if 0 < box.share < 0.0005 else format_percent(box.share or None)


def _connect(axes: Axes, way: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A line from box to box: bent near one end, or an arc on the left that reaches out with its length."""
    (x0, y0), (x1, y1) = start, end
    if way == "arc":
        x = LEFT - min(0.2 + 0.25 * (y1 - y0), LEFT) * 4 / 3
        points = [start, (x, y0), (x, y1), end]
        codes = [Curve.MOVETO, *[Curve.CURVE4] * 3]
    else:
        turn = y0 if way == "early" else y1 - ROW
        middle = turn + ROW / 2
        points = [start, (x0, turn), (x0, middle), (x1, middle), (x1, turn + ROW), end]
        codes = [Curve.MOVETO, Curve.LINETO, *[Curve.CURVE4] * 3, Curve.LINETO]
    axes.add_patch(PathPatch(Curve(points, codes), fill=False, edgecolor=INK, linewidth=1, zorder=1))


def main(
    run: RunFolder,
    id: NetworkId,  # noqa: A002
    json: JsonFlag = False,
) -> None:
    """Draws one network of a run."""
    opened = open_run(run)
    info = network_info(opened, find_individual(opened, id))
    if json:
        print_json(info)
    else:
        save_figure(draw_network(info), run, f"network-{info.id}")


if __name__ == "__main__":
    run_command(main, "python -m analysis.network")
