"""The family tree of a run, and one individual's line of descent.

    python -m analysis.lineage RUN [--id N]

In the tree every line is a life: it leaves the parent's line, ends where the individual had no successors,
and runs on to the last generation where it survived. A second figure tells one line step by step.
"""

from __future__ import annotations

from typing import Annotated

import tyro
from msgspec import Struct

from analysis.common import (
    JsonFlag,
    Run,
    RunFolder,
    describe_mutation,
    open_run,
    print_json,
    run_command,
    save_figure,
)
from analysis.descent import Step, descent_info, draw_descent, print_descent
from analysis.layout import ancestors
from analysis.tree import Member, draw_tree

IndividualId = Annotated[int | None, tyro.conf.arg(help="Whose line to tell; else the best survivor's.")]


class LineageInfo(Struct, frozen=True):
    """The numbers behind both figures.

    Attributes:
        run: Name of the run folder.
        last_generation: The last generation with an individual or a population.
        members: Everyone, in order of birth.
        line: The line of descent, from the founder down.
    """

    run: str
    last_generation: int
    members: list[Member]
    line: list[Step]


def lineage_info(run: Run, id: int | None = None) -> LineageInfo:  # noqa: A002
    """Collects the family tree and one line of descent.

    Args:
        run: The run.
        id: Whose line; None for the most accurate survivor (or the founder, where none was measured).

    Raises:
        LineageError: When there is no such individual.
    """
    survivors = set(run.survivors)
    accuracies = {individual.id: individual.outcome.accuracy or 0.0 for individual in run.individuals}
    best = max(run.survivors or [run.founder.id], key=lambda survivor: (accuracies[survivor], -survivor))
    founders = ancestors({i.id: i.parent for i in run.individuals}, run.survivors)
    members = [
        Member(
            id=individual.id,
            parent=individual.parent,
            generation=individual.generation,
            mutation=describe_mutation(individual),
            accuracy=individual.outcome.accuracy,
            survives=individual.id in survivors,
            founds=individual.id in founders,
        )
        for individual in run.individuals
    ]
    return LineageInfo(
        run=run.folder.resolve().name,
        last_generation=max([*run.populations, *(member.generation for member in members)]),
        members=members,
        line=descent_info(run, best if id is None else id),
    )


def main(run: RunFolder, id: IndividualId = None, json: JsonFlag = False) -> None:  # noqa: A002
    """Draws the family tree of a run, and prints and draws one line of descent."""
    info = lineage_info(open_run(run), id)
    if json:
        print_json(info)
        return
    line = info.line
    print_descent(line)
    save_figure(
        draw_tree(info.run, info.members, info.last_generation, {step.id for step in line}), run, "lineage"
    )
    save_figure(draw_descent(info.run, line), run, f"lineage-{line[-1].id}")


if __name__ == "__main__":
    run_command(main, "python -m analysis.lineage")
