"""Tables drawn into figures, with columns as wide as their text."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from analysis.common import GREY, INK

ROW, GAP = 0.27, 0.25
"""Inches: height of a row, space between columns."""


def draw_table(axes: Axes, rows: Sequence[Sequence[str]], right: Sequence[int], x: float, y: float) -> float:
    """Writes a table into axes whose unit is the inch.

    Args:
        axes: Where to.
        rows: The heading, then the rows, all of one length.
        right: Which columns end flush on the right.
        x: Left edge.
        y: Middle of the first row below the heading; further rows follow downwards.

    Returns:
        The right edge.
    """
    for column in range(len(rows[0])):
        end = x + max(text_width(row[column]) for row in rows)
        for number, row in enumerate(rows):
            place, side = (end, "right") if column in right else (x, "left")
            colour = INK if number else GREY
            height = y + ROW * (number - 1)
            axes.text(place, height, row[column], fontsize=9, va="center", ha=side, color=colour)
        x = end + GAP
    return x - GAP


def draw_heading(axes: Axes, lines: Sequence[str]) -> float:
    """Writes a title, facts and a legend at the top left; returns the right edge."""
    axes.text(GAP, 0.27, lines[0], weight="bold", fontsize=11, va="center")
    for number, line in enumerate(lines[1:]):
        axes.text(GAP, 0.5 + 0.2 * number, line, fontsize=9, va="center", color=GREY)
    return GAP + max(1.4 * text_width(lines[0]), *[text_width(line) for line in lines[1:]])


def text_width(text: str) -> float:
    """Width in inches at 9 points."""
    font = FontProperties(family="DejaVu Sans", size=9)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def format_table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """The same table as plain text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
