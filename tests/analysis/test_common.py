"""Opening runs, the command line and saved figures."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from matplotlib.figure import Figure

from analysis import calibration, front, lineage, network
from analysis.common import (
    Measured,
    describe_mutation,
    format_count,
    format_percent,
    open_run,
    read_json,
    run_command,
    save_figure,
)
from populations.individual import Individual
from populations.lineage import DATABASE, Lineage
from populations.records import LineageError
from tests.runs import make_run

SCRIPTS = [
    (front.main, []),
    (lineage.main, []),
    (calibration.main, []),
    (network.main, ["founder"]),
]


def complaint(capsys: pytest.CaptureFixture[str], main: Callable[..., None], *args: object) -> str:
    """What a command says when it ends with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        run_command(main, "prog", [str(arg) for arg in args])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("prog: ")
    return captured.err


def write_lineage(folder: Path, individuals: list[Individual], population: list[int]) -> None:
    (folder / "config.json").write_text("{}")
    with Lineage(folder) as store:
        for individual in individuals:
            store.add(individual)
        if population:
            store._db.execute("PRAGMA foreign_keys = OFF")
            store.set_population(0, population, 1.0)


@pytest.mark.parametrize(("main", "args"), SCRIPTS)
def test_bad_folders_end_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], main: Callable[..., None], args: list[str]
) -> None:
    assert "no run folder" in complaint(capsys, main, tmp_path / "absent", *args)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_lineage(empty, [], [])
    assert "holds no individual yet" in complaint(capsys, main, empty, *args)
    (empty / "config.json").unlink()
    assert "holds no config.json" in complaint(capsys, main, empty, *args)
    (empty / DATABASE).write_bytes(b"not a database" * 100)
    assert "cannot be read" in complaint(capsys, main, empty, *args)


def test_every_script_runs_on_its_own_without_torch(tmp_path: Path) -> None:
    folder = tmp_path / "$100 & a %s <run>, $200"
    make_run(folder)
    script = (
        "import runpy, sys\n"
        "for name, *more in ('front',), ('lineage',), ('calibration',), ('network', 'founder'):\n"
        "    sys.argv[2:] = more\n"
        "    runpy.run_module(f'analysis.{name}', run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "figures").iterdir())) == 10


@pytest.mark.parametrize(
    ("parents", "population", "message"),
    [
        ([None, None], [], "individual 1 .* its parent is None"),
        ([None, 7], [], "its parent is 7"),
        ([None, 1], [], "its parent is 1"),
        ([0], [], "individual 0 .* expected None"),
        ([None, 0], [0, 9], r"unknown ids \[9\]"),
    ],
)
def test_a_family_must_hang_together(
    tmp_path: Path, parents: list[int | None], population: list[int], message: str
) -> None:
    first = make_run(tmp_path / "donor", generations=0)[0]
    family = [msgspec.structs.replace(first, id=i, parent=parent) for i, parent in enumerate(parents)]
    write_lineage(tmp_path, family, population)
    with pytest.raises(LineageError, match=message):
        open_run(tmp_path)


def test_a_run_knows_its_founder_and_survivors(tmp_path: Path) -> None:
    everyone = make_run(tmp_path)
    run = open_run(tmp_path)
    assert run.individuals == everyone
    assert run.founder.id == 0
    assert run.survivors == run.populations[4]
    assert run._replace(populations={}).survivors == []


def test_mutations_in_words(tmp_path: Path) -> None:
    everyone = make_run(tmp_path)
    assert describe_mutation(everyone[0]) == "founder"
    words = {describe_mutation(child) == "train on" for child in everyone[1:] if child.edit is None}
    assert words == {True}
    edited = [i for i in everyone if i.edit is not None]
    assert all(describe_mutation(i) == i.edit.describe() for i in edited)
    larger = msgspec.structs.replace(edited[0], is_enlarged=True)
    assert describe_mutation(larger) == f"enlarge: {edited[0].edit.describe()}"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"id": 0}', '{"id": 0, "accuracy": 2, "flops": 1}', "[" * 99_999, "\ufffd", "null"]
)
def test_damaged_records_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "founder.json"
    assert read_json(path, Measured) is None
    path.write_text(text)
    with pytest.raises(LineageError, match=r"founder\.json cannot be read"):
        read_json(path, Measured)


def test_equal_figures_give_equal_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        figure = Figure()
        figure.add_subplot().plot([1, 2], label="clipped")
        save_figure(figure, tmp_path / name, "x")
        written = sorted((tmp_path / name / "figures").iterdir())
        assert [path.name for path in written] == ["x.png", "x.svg"]
        files.append([path.read_bytes() for path in written])
        assert capsys.readouterr().out.splitlines() == [f"wrote {path}" for path in written]
    assert files[0] == files[1]
    assert b"date>" not in files[0][1]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1234, "1.23 k"), (5e6, "5 M"), (2e9, "2 G"), (7e12, "7 T")]
)
def test_counts_in_words(count: float, text: str) -> None:
    assert format_count(count) == text


def test_percent_in_words() -> None:
    assert (format_percent(0.9712), format_percent(None)) == ("97.1 %", "-")
