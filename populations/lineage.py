"""The lineage of a run: every individual that ever lived, in one SQLite file.

A run folder holds ``config.json``, ``lineage.db``, ``weights/ID.safetensors``, ``front.json`` and
``figures/``. The driver is the only writer. Nothing in the folder is pickled, so a run from a stranger
is safe to open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evo_topo.edits import EditError
from evo_topo.genome import Genome
from populations.individual import Individual
from populations.records import SCHEMA, LineageError, from_row, prices_to_json, to_row

DATABASE = "lineage.db"


class Lineage:
    """The individuals and populations of one run.

    Args:
        run_dir: The run folder; the database is made in it unless `read_only`.
        read_only: Open an existing run for analysis only.

    Raises:
        LineageError: When there is no run, or its database is damaged.
    """

    def __init__(self, run_dir: Path, read_only: bool = False) -> None:
        self.run_dir = run_dir
        path = run_dir / DATABASE
        if read_only and not path.is_file():
            raise LineageError(f"{run_dir} is no run folder: it holds no {DATABASE}")
        self._read_only = read_only
        mode = "ro" if read_only else "rwc"
        try:
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
        except sqlite3.DatabaseError as error:
            raise LineageError(f"{path} cannot be opened: {error}") from None
        if not read_only:
            try:
                # One fsync a commit costs nothing at one commit a child, and outlives a power loss.
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(SCHEMA)
            except sqlite3.DatabaseError as error:
                self._db.close()
                raise LineageError(f"{path} cannot be opened: {error}") from None

    def close(self) -> None:
        """Closes the database; what the driver leaves is one plain file, readable on any medium."""
        if not self._read_only:
            with suppress(sqlite3.OperationalError):  # a reader has it open: the log stays beside it
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def __enter__(self) -> Lineage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """One transaction.

        Raises:
            LineageError: When it cannot be written, as on a full disk; nothing of it is, then.
        """
        try:
            with self._db:
                yield
        except sqlite3.Error as error:
            raise LineageError(f"{self.run_dir / DATABASE} cannot be written: {error}") from None

    def add(self, individual: Individual) -> None:
        """Stores an individual durably."""
        row = to_row(individual)
        marks = ", ".join(f":{column}" for column in row)
        with self._written():
            self._db.execute(f"INSERT INTO individual ({', '.join(row)}) VALUES ({marks})", row)

    def set_prices(self, individual: Individual) -> None:
        """Stores the prices of an individual that the lineage holds, or why it has none."""
        outcome = individual.outcome
        row = prices_to_json(outcome.prices), outcome.reason, individual.id
        with self._written():
            self._db.execute("UPDATE individual SET prices = ?, reason = ? WHERE id = ?", row)

    def individuals(self) -> list[Individual]:
        """Every individual, in order of birth.

        Raises:
            LineageError: When a stored row is no valid individual.
        """
        return [from_row(row) for row in self._rows("SELECT * FROM individual ORDER BY id")]

    def set_population(
        self, generation: int, ids: list[int], seconds: float, is_polish: bool = False
    ) -> None:
        """Stores who survived a generation.

        Args:
            generation: Its number.
            ids: The survivors.
            seconds: What the run had taken by then.
            is_polish: Whether its children are survivors that trained on, and who draws their front out.
        """
        with self._written():
            self._db.executemany("INSERT INTO population VALUES (?, ?)", [(generation, i) for i in ids])
            self._db.execute("INSERT INTO generation VALUES (?, ?, ?)", (generation, seconds, is_polish))

    def populations(self) -> dict[int, list[int]]:
        """Ids of the survivors of each finished generation, in order."""
        found: dict[int, list[int]] = {}
        for row in self._rows("SELECT generation, id FROM population ORDER BY generation, id"):
            found.setdefault(row["generation"], []).append(row["id"])
        return found

    def seconds(self) -> dict[int, float]:
        """Seconds the run had taken at the end of each finished generation."""
        return {row["generation"]: row["seconds"] for row in self._rows("SELECT * FROM generation")}

    def polished(self) -> set[int]:
        """Numbers of the generations in which survivors were polished."""
        return {row["generation"] for row in self._rows("SELECT * FROM generation WHERE is_polish")}

    def polishing(self) -> int | None:
        """The generation in which survivors are being polished; None where that is not begun, or done."""
        query = "SELECT generation FROM polish WHERE generation NOT IN (SELECT generation FROM generation)"
        rows = self._rows(query)
        return rows[0]["generation"] if rows else None

    def begin_polish(self, generation: int) -> list[int]:
        """Notes durably that a generation is a polish.

        Children that were bred under its number, or later ones, are removed: a run that was stopped has them
        where it ends earlier than it bred for.

        Returns:
            Ids of those that were removed.
        """
        removed = [
            row["id"] for row in self._rows(f"SELECT id FROM individual WHERE generation >= {generation}")
        ]
        with self._written():
            self._db.execute("DELETE FROM individual WHERE generation >= ?", (generation,))
            self._db.execute("INSERT INTO polish VALUES (?)", (generation,))
        return removed

    def unpolished(self) -> set[int]:
        """Ids of the survivors whose polish came to nothing: their children do not survive it."""
        query = "SELECT parent FROM individual JOIN generation USING (generation) WHERE is_polish"
        return {row["parent"] for row in self._rows(f"{query} AND (generation, id) NOT IN population")}

    def _rows(self, query: str) -> list[sqlite3.Row]:
        cursor = self._db.cursor()
        cursor.row_factory = sqlite3.Row
        try:
            return cursor.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise LineageError(f"{self.run_dir / DATABASE} cannot be read: {error}") from None


def load_run(run_dir: str | Path) -> list[Individual]:
    """Every individual of a run, in order of birth.

    Args:
        run_dir: A run folder.

    Raises:
        LineageError: When it is no run folder, or is damaged.
    """
    with Lineage(Path(run_dir), read_only=True) as lineage:
        return lineage.individuals()


def line_of_descent(individuals: list[Individual], id: int) -> list[Individual]:  # noqa: A002
    """The founder, its child, ... down to one individual.

    Raises:
        LineageError: When the id, or one of its ancestors, is not among the individuals.
    """
    by_id = {individual.id: individual for individual in individuals}
    line: list[Individual] = []
    current: int | None = id
    while current is not None:
        if current not in by_id:
            raise LineageError(f"there is no individual {current}; ids are 0 to {max(by_id, default=0)}")
        if len(line) > len(by_id):
            raise LineageError(f"individual {id} descends from itself")
        line.append(by_id[current])
        current = by_id[current].parent
    return line[::-1]


def replay(individuals: list[Individual], id: int) -> Genome:  # noqa: A002
    """The genome that founder + list of edits gives: equal to the stored one in a sound lineage.

    Raises:
        LineageError: When an edit does not apply to the genome it should change.
    """
    founder, *rest = line_of_descent(individuals, id)
    genome = founder.genome
    for individual in rest:
        try:
            genome = genome if individual.edit is None else individual.edit.apply(genome)
        except EditError as error:
            raise LineageError(f"the edit of individual {individual.id} does not apply: {error}") from None
    return genome
