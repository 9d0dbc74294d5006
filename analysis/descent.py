"""One individual's line of descent: what each step changed, promised and gave."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from msgspec import Struct

from analysis.common import (
    ACCENT,
    CATEGORIES,
    GREY,
    PALE,
    Run,
    describe_mutation,
    format_count,
    format_percent,
    less,
    styled,
)
from analysis.table import GAP, ROW, draw_heading, draw_table, format_table
from populations.individual import Outcome
from populations.lineage import line_of_descent

TOP, STRIP, MOST_ROWS = 1.2, 1.6, 100
"""Inches for the heading, inches for each strip of marks, and the most steps that a figure shows."""
_RIGHT = (0, 1, 3, 4, 5, 6, 7)


class Step(Struct, frozen=True):
    """One individual of a line of descent.

    Attributes:
        id: Its id.
        generation: Generation of birth.
        mutation: What made it out of its parent.
        macs: MACs for one example.
        accuracy: Validation accuracy, where it was measured.
        predicted: Predicted loss change of the mutation.
        inherited: Loss right after inheritance less the parent's loss.
        trained: Loss after training less the parent's loss.
    """

    id: int
    generation: int
    mutation: str
    macs: int
    accuracy: float | None
    predicted: float | None
    inherited: float | None
    trained: float | None


def descent_info(run: Run, id: int) -> list[Step]:  # noqa: A002
    """The steps from the founder down to one individual.

    Raises:
        LineageError: When there is no such individual.
    """
    steps = []
    parent = Outcome("failed")
    for individual in line_of_descent(run.individuals, id):
        outcome = individual.outcome
        steps.append(
            Step(
                id=individual.id,
                generation=individual.generation,
                mutation=describe_mutation(individual),
                macs=individual.macs,
                accuracy=outcome.accuracy,
                predicted=individual.predicted_loss_change,
                inherited=less(outcome.inherited_loss, parent.probe_loss),
                trained=less(outcome.loss, parent.loss),
            )
        )
        parent = outcome
    return steps


def descent_rows(steps: list[Step]) -> list[list[str]]:
    """The steps as a table of texts, with its heading."""
    heading = ["gen.", "id", "step", "MACs", "accuracy", "predicted", "inherited", "trained"]
    return [heading] + [
        [
            str(step.generation),
            str(step.id),
            step.mutation,
            format_count(step.macs),
            format_percent(step.accuracy),
            *["-" if c is None else f"{c:+.4f}" for c in (step.predicted, step.inherited, step.trained)],
        ]
        for step in steps
    ]


def print_descent(steps: list[Step]) -> None:
    """Prints the steps as a table."""
    print(format_table(descent_rows(steps), _RIGHT))


@styled
def draw_descent(name: str, steps: list[Step]) -> Figure:
    """Draws the table of the last steps, with strips for MACs and accuracy."""
    shown = steps[-MOST_ROWS:]
    lines = [
        f"{name}: how individual {steps[-1].id} came about",
        f"{len(steps) - 1} steps from the founder"
        + (f", the last {len(shown)} shown" if len(shown) < len(steps) else ""),
        "loss less the parent's: predicted and inherited on the training examples that it was priced on, "
        "trained on the validation split",
    ]
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    width = draw_heading(axes, lines)
    left = draw_table(axes, descent_rows(shown), _RIGHT, GAP, TOP + ROW / 2) + 1.5 * GAP
    _draw_strips(axes, shown, left)
    size = max(width, left + 2 * STRIP + GAP) + GAP, TOP + ROW * len(shown) + GAP
    figure.set_size_inches(*size)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.set_axis_off()
    return figure


def _draw_strips(axes: Axes, steps: list[Step], left: float) -> None:
    """Bars for MACs, from 0; dots for accuracy, from its lowest to its highest."""
    heights = [TOP + ROW * (row + 0.5) for row in range(len(steps))]
    most = max(step.macs for step in steps)
    axes.barh(heights, [STRIP * step.macs / most for step in steps], 0.14, left=left, color=CATEGORIES[4])
    axes.text(left, TOP - ROW / 2, "MACs", fontsize=9, va="center", color=GREY)
    known = [
        (height, step.accuracy)
        for height, step in zip(heights, steps, strict=True)
        if step.accuracy is not None
    ]
    left += STRIP + GAP
    axes.text(left, TOP - ROW / 2, "accuracy", fontsize=9, va="center", color=GREY)
    low = min((accuracy for _, accuracy in known), default=0.0)
    span = max((accuracy for _, accuracy in known), default=1.0) - low or 1.0
    places = [left + STRIP * (accuracy - low) / span for _, accuracy in known]
    axes.hlines(heights, left, left + STRIP, color=PALE, linewidth=0.6)
    axes.plot(places, [height for height, _ in known], "o-", color=ACCENT, markersize=4, linewidth=1)
