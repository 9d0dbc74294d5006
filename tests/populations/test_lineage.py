"""The lineage store: exact, durable, and clear about damage."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from evo_topo.edits import STRUCTURAL_KINDS
from evo_topo.prices import Prices, UnitPrices
from populations.individual import Individual, Outcome
from populations.lineage import DATABASE, Lineage, line_of_descent, load_run, replay
from populations.records import LineageError
from tests.runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Individual]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, make_run(folder)


def test_round_trip_is_exact(run: tuple[Path, list[Individual]]) -> None:
    folder, everyone = run
    loaded = load_run(folder)
    assert loaded == everyone
    assert any(not individual.is_alive for individual in loaded)
    kinds = {type(individual.edit) for individual in loaded}
    assert type(None) in kinds
    assert len(kinds) > len(STRUCTURAL_KINDS) / 2
    assert load_run(str(folder)) == loaded


def test_extreme_records_survive(tmp_path: Path) -> None:
    first = make_run(tmp_path, generations=0)[0]
    prices = Prices("obd", {"conv1": UnitPrices((1, 0), (-0.1, 1e-300))}, {"conv4": 0.1 + 0.2})
    outcomes = [
        Outcome("failed", reason="naïve 'quotes' \"and\"\nlines, \u4e2d \x01"),
        Outcome("stopped", reason="above the hurdle", halfway_loss=0.1 + 0.2, examples=64),
        Outcome("ok", loss=5e-324, inherited_loss=1e308, accuracy=1.0, correct="f" * 5000, prices=prices),
        Outcome("ok", flops=2**62, examples=2**40, accuracy=0.0),
    ]
    more = [
        msgspec.structs.replace(first, id=i, parent=0, outcome=outcome)
        for i, outcome in enumerate(outcomes, start=1)
    ]
    more.append(msgspec.structs.replace(first, id=len(more) + 1, parent=0, is_enlarged=True))
    with Lineage(tmp_path) as lineage:
        for individual in more:
            lineage.add(individual)
    assert load_run(tmp_path) == [first, *more]


def test_populations_and_clock(run: tuple[Path, list[Individual]]) -> None:
    folder, everyone = run
    with Lineage(folder, read_only=True) as lineage:
        populations, seconds = lineage.populations(), lineage.seconds()
    assert list(populations) == [0, 1, 2, 3, 4]
    assert populations[0] == [0]
    assert all(everyone[i].is_alive for ids in populations.values() for i in ids)
    assert seconds == {generation: 1.0 + generation for generation in range(5)}


def test_an_id_is_stored_once(tmp_path: Path) -> None:
    everyone = make_run(tmp_path, generations=1)
    with Lineage(tmp_path) as lineage, pytest.raises(LineageError, match="UNIQUE"):
        lineage.add(everyone[1])
    assert load_run(tmp_path) == everyone


def test_what_was_added_outlives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.runs import make_run\n"
        "from populations.lineage import Lineage\n"
        "close = Lineage.close\n"
        "Lineage.close = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_run(Path(sys.argv[1]), generations=1)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=False)
    assert killed.returncode < 0
    assert load_run(tmp_path / "a") == make_run(tmp_path / "b", generations=1)


def test_replay_gives_the_stored_genomes(run: tuple[Path, list[Individual]]) -> None:
    _, everyone = run
    for individual in everyone:
        assert replay(everyone, individual.id) == individual.genome


def test_line_of_descent(run: tuple[Path, list[Individual]]) -> None:
    _, everyone = run
    line = line_of_descent(everyone, everyone[-1].id)
    assert line[0] is everyone[0]
    assert line[-1] is everyone[-1]
    assert [child.parent for child in line[1:]] == [parent.id for parent in line[:-1]]


def test_line_of_descent_names_what_is_missing(run: tuple[Path, list[Individual]]) -> None:
    _, everyone = run
    with pytest.raises(LineageError, match="no individual 999"):
        line_of_descent(everyone, 999)
    with pytest.raises(LineageError, match="no individual 0"):
        line_of_descent(everyone[1:], 3)
    with pytest.raises(LineageError, match="no individual 0"):
        line_of_descent([], 0)


def test_a_cycle_ends(run: tuple[Path, list[Individual]]) -> None:
    _, (first, second, *_) = run
    cycle = [msgspec.structs.replace(first, parent=1), msgspec.structs.replace(second, parent=0)]
    with pytest.raises(LineageError, match="descends from itself"):
        line_of_descent(cycle, 1)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("genome", "{"),
        ("genome", '{"nodes": []}'),
        ("genome", "[" * 100_000),
        ("edit", '{"edit": "unheard_of"}'),
        ("edit", "7"),
        ("prices", '{"criterion": "obd"}'),
        ("prices", "null"),
        ("status", "splendid"),
        ("accuracy", 1.5),
        ("accuracy", -0.1),
        ("accuracy", float("inf")),
        ("loss", float("-inf")),
        ("inherited_loss", float("inf")),
        ("halfway_loss", float("-inf")),
        ("predicted_loss_change", float("inf")),
        ("examples", -1),
        ("training_flops", -1),
        ("seconds", -1.0),
        ("generation", -1),
        ("parent", -5),
        ("inherited_examples", -1),
        ("inherited_training_flops", -1),
        ("inherited_seconds", float("inf")),
        ("correct", "xyz"),
        ("is_enlarged", 7),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, column: str, value: object) -> None:
    make_run(tmp_path, generations=1)
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute(f"UPDATE individual SET {column} = ? WHERE id = 2", (value,))
    database.commit()
    database.close()
    with pytest.raises(LineageError, match="individual 2 of the lineage is damaged"):
        load_run(tmp_path)


def test_a_lineage_of_another_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    make_run(tmp_path, generations=1)
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute("ALTER TABLE individual DROP COLUMN is_enlarged")
    database.commit()
    database.close()
    with pytest.raises(LineageError, match="another version of evo_topo wrote it"):
        load_run(tmp_path)


def test_a_loosely_typed_table_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, generations=1)
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute("CREATE TABLE loose AS SELECT * FROM individual")
    database.execute("DROP TABLE individual")
    database.execute("ALTER TABLE loose RENAME TO individual")
    for column in ("genome", "edit", "prices", "generation"):
        database.execute("UPDATE individual SET id = 'one', status = 5")
        database.execute(f"UPDATE individual SET {column} = 3.5")
        database.commit()
        with pytest.raises(LineageError, match="damaged"):
            load_run(tmp_path)
    database.close()


def test_no_run_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LineageError, match="no run folder"):
            load_run(folder)
    with pytest.raises(LineageError, match="cannot be opened"):
        Lineage(tmp_path / "absent")


@pytest.mark.parametrize("damage", ["foreign", "truncated", "overwritten", "other tables", "empty"])
def test_a_damaged_database_is_named(tmp_path: Path, damage: str) -> None:
    make_run(tmp_path)
    path = tmp_path / DATABASE
    whole = path.read_bytes()
    if damage == "foreign":
        path.write_bytes(b"\x89PNG, not a database at all" * 100)
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "overwritten":
        path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    else:
        path.unlink()
        database = sqlite3.connect(path)
        if damage == "other tables":
            database.execute("CREATE TABLE individual (name TEXT)")
        database.commit()
        database.close()
        path.touch()
    with pytest.raises(LineageError, match=r"cannot be read|damaged"):
        load_run(tmp_path)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    founder = make_run(tmp_path, generations=0)[0]
    with Lineage(tmp_path) as lineage:
        lineage._db.execute("PRAGMA query_only = ON")  # as a full disk would
        for write in (
            lambda: lineage.add(msgspec.structs.replace(founder, id=1, parent=0)),
            lambda: lineage.set_prices(founder),
            lambda: lineage.set_population(9, [0], 1.0),
        ):
            with pytest.raises(LineageError, match="cannot be written"):
                write()
