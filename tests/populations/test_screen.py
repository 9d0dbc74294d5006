import io

from rich.console import Console

from populations.progress import Progress
from populations.screen import as_line, as_table


def test_the_polish_is_no_generation_that_was_asked_for():
    progress = Progress("polishing", 4, 3, 1, 2, 0, 7, 0.5, [(1, 0.5, 1000)], 9.0, 2.0)
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
