import io
from pathlib import Path

import pytest
from rich.console import Console

from populations.progress import Progress
from populations.results import Result
from populations.screen import Screen, as_line, as_table, print_result
from populations.survivors import Entry


def test_the_polish_is_no_generation_that_was_asked_for():
    progress = Progress(Path("r"), "polishing", 4, 3, 1, 2, 0, 7, 0.5, [(1, 0.5, 1000)], 9.0, 2.0)
    assert "generation 4  " in as_line(progress)
    assert "generation 3/3  " in as_line(progress._replace(generation=3))
    assert "ETA 2 s" in as_line(progress)
    assert "stopped 7" in as_line(progress)
    assert "stopped" not in as_line(progress._replace(stopped=0))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(as_table(progress))
    console.print(as_table(progress._replace(generation=3)))
    shown = console.export_text()
    assert "generation 4   " in shown
    assert "generation 3 of 3" in shown


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_screen_shows_progress(is_terminal, capsys):
    progress = Progress(Path("r"), "evolving", 1, 3, 2, 2, 0, 0, 0.5, [(1, 0.5, 1000)], 9.0, 2.0)
    console = Console(force_terminal=is_terminal, width=120, file=io.StringIO())
    with Screen(console) as screen:
        screen.show(progress)
    shown = console.file.getvalue() if is_terminal else capsys.readouterr().out
    assert "evolving" in shown
    assert "best" in shown
    assert screen.last == progress


def test_a_front_without_founder_is_printed():
    console = Console(width=120, record=True, file=io.StringIO())
    print_result(console, Result(Path("r"), [Entry(7, 0.9, 0.8, 500, 1000, 50, {})], None, 0, None))
    shown = console.export_text()
    assert "0.8000" in shown
    assert "founder" not in shown
