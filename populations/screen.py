"""What a run shows: live progress, and the front at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from populations.progress import Progress

if TYPE_CHECKING:  # it loads torch, and the first line is to be seen before
    from populations.results import Result
    from populations.survivors import Entry


class Screen:
    """Live progress on a terminal; elsewhere one plain line per generation.

    Attributes:
        last: What was shown last; None before anything was.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None
        self.last: Progress | None = None

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self.live = Live(console=self.console, transient=True, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, progress: Progress) -> None:
        """Shows how far the run is."""
        self.last = progress
        if self.live is not None:
            self.live.update(as_table(progress), refresh=True)
        elif progress.children_done == progress.children:
            print(as_line(progress), flush=True)


def as_line(progress: Progress) -> str:
    """One line of plain text."""
    of = f"/{progress.generations}" if _is_counted(progress) else ""
    front = "  ".join(f"{accuracy:.3f}@{_short(flops)}" for _, accuracy, flops in progress.front[-6:])
    return (
        f"{progress.phase}: generation {progress.generation}{of}  "
        f"children {progress.children_done}/{progress.children}  "
        + (f"failed {progress.failed}  " if progress.failed else "")
        + (f"stopped {progress.stopped}  " if progress.stopped else "")
        + f"best {progress.best_accuracy:.3f}  front {front or '-'}  "
        f"{progress.elapsed:.0f} s, ETA {_eta(progress)}"
    )


def as_table(progress: Progress) -> RenderableType:
    """Progress and front for a terminal."""
    of = f" of {progress.generations}" if _is_counted(progress) else ""
    head = Text.assemble(
        (progress.phase, "bold"),
        f"   generation {progress.generation}{of}   children {progress.children_done}/{progress.children}",
        f"   failed {progress.failed}   stopped {progress.stopped}",
        f"   best accuracy {progress.best_accuracy:.3f}",
        f"   {progress.elapsed:.0f} s, ETA {_eta(progress)}",
    )
    bar = ProgressBar(total=progress.children, completed=progress.children_done, width=60)
    table = Table("id", "validation accuracy", "FLOPs", title="front", title_justify="left")
    for id_, accuracy, flops in progress.front:
        table.add_row(str(id_), f"{accuracy:.4f}", _short(flops))
    return Group(head, bar, table)


def _is_counted(progress: Progress) -> bool:
    """Whether this generation is one of those that were asked for: the polish comes on top."""
    return progress.generations is not None and progress.generation <= progress.generations


def _eta(progress: Progress) -> str:
    return "-" if progress.remaining is None else f"{progress.remaining:.0f} s"


def _short(count: float) -> str:
    """A count in three digits: 1.23M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"


def print_result(console: Console, result: Result) -> None:
    """Prints the front with the founder for comparison, and where to look further."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("id", "test accuracy", "FLOPs", "parameters", "accuracy per MFLOP"):
        table.add_column(title, justify="right")
    for entry in result.front:
        table.add_row(str(entry.id), *_cells(entry))
    if result.founder is not None:
        table.add_section()
        table.add_row("founder", *_cells(result.founder))
    console.print(table)
    if result.founder is not None:
        console.print(
            f"The founder was trained with {result.founder_examples:,} examples, as many as the longest line "
            "of descent up to its polish.",
            highlight=False,
        )
    smallest = result.front[0].id
    console.print(f"run folder: {result.run_dir}", highlight=False, soft_wrap=True)
    for command in ("front", "lineage", "calibration"):
        console.print(f"  python -m analysis.{command} {result.run_dir}", highlight=False, soft_wrap=True)
    console.print(
        f"  python -m analysis.network {result.run_dir} {smallest}", highlight=False, soft_wrap=True
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    ratio = entry.test_accuracy / (entry.flops / 1e6)
    return f"{entry.test_accuracy:.4f}", _short(entry.flops), f"{entry.params:,}", f"{ratio:.3g}"
