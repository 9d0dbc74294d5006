"""How individuals are stored: tables of SQLite, and rows of them."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from evo_topo.edits import AnyEdit, EditError, edit_from_json
from evo_topo.genome import Genome, GenomeError
from evo_topo.prices import Prices
from populations.individual import Individual, Screened

SCHEMA = """
CREATE TABLE IF NOT EXISTS individual (
    id INTEGER PRIMARY KEY,
    parent INTEGER REFERENCES individual (id),
    generation INTEGER NOT NULL,
    edit TEXT,
    genome TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    predicted_loss_change REAL,
    promised_loss_change REAL,
    is_enlarged INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    inherited_loss REAL,
    refit_loss REAL,
    screened TEXT NOT NULL,
    probe_loss REAL,
    halfway_loss REAL,
    loss REAL,
    accuracy REAL,
    soft_error REAL,
    correct TEXT NOT NULL,
    macs INTEGER NOT NULL,
    flops INTEGER NOT NULL,
    params INTEGER NOT NULL,
    examples INTEGER NOT NULL,
    training_flops INTEGER NOT NULL,
    seconds REAL NOT NULL,
    training_seconds REAL NOT NULL,
    inherited_examples INTEGER NOT NULL,
    inherited_training_flops INTEGER NOT NULL,
    inherited_seconds REAL NOT NULL,
    device TEXT NOT NULL,
    weights_sha256 TEXT NOT NULL,
    prices TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS population (
    generation INTEGER NOT NULL,
    id INTEGER NOT NULL REFERENCES individual (id),
    PRIMARY KEY (generation, id)
) STRICT;
CREATE TABLE IF NOT EXISTS generation (
    generation INTEGER PRIMARY KEY,
    seconds REAL NOT NULL,
    is_polish INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS polish (generation INTEGER PRIMARY KEY);
"""

_INDIVIDUAL_COLUMNS = (
    "id",
    "parent",
    "generation",
    "predicted_loss_change",
    "promised_loss_change",
    "inherited_examples",
    "inherited_seconds",
)
_OUTCOME_COLUMNS = (
    "status",
    "reason",
    "inherited_loss",
    "refit_loss",
    "probe_loss",
    "halfway_loss",
    "loss",
    "accuracy",
    "soft_error",
    "correct",
    "examples",
    "seconds",
    "training_seconds",
    "device",
    "weights_sha256",
)


class LineageError(ValueError):
    """A run folder cannot be read; the message says what is wrong with it."""


def to_row(individual: Individual) -> dict[str, Any]:
    """An individual as a row of the table `individual`."""
    outcome = individual.outcome
    return {
        "id": individual.id,
        "parent": individual.parent,
        "generation": individual.generation,
        "edit": None if individual.edit is None else individual.edit.to_json(),
        "genome": individual.genome.to_json(),
        "fingerprint": individual.genome.fingerprint,
        "predicted_loss_change": individual.predicted_loss_change,
        "promised_loss_change": individual.promised_loss_change,
        "is_enlarged": individual.is_enlarged,
        "status": outcome.status,
        "reason": outcome.reason,
        "inherited_loss": outcome.inherited_loss,
        "refit_loss": outcome.refit_loss,
        "screened": msgspec.json.encode(outcome.screened).decode(),
        "probe_loss": outcome.probe_loss,
        "halfway_loss": outcome.halfway_loss,
        "loss": outcome.loss,
        "accuracy": outcome.accuracy,
        "soft_error": outcome.soft_error,
        "correct": outcome.correct,
        "macs": individual.macs,
        "flops": individual.flops,
        "params": individual.params,
        "examples": outcome.examples,
        "training_flops": outcome.flops,
        "seconds": outcome.seconds,
        "training_seconds": outcome.training_seconds,
        "inherited_examples": individual.inherited_examples,
        "inherited_training_flops": individual.inherited_flops,
        "inherited_seconds": individual.inherited_seconds,
        "device": outcome.device,
        "weights_sha256": outcome.weights_sha256,
        "prices": prices_to_json(outcome.prices),
    }


def prices_to_json(prices: Prices | None) -> str | None:
    """A price list as it is stored."""
    return None if prices is None else msgspec.json.encode(prices).decode()


def from_row(row: sqlite3.Row) -> Individual:
    """The individual of a row.

    Raises:
        LineageError: When the row is damaged, or lacks a column.
    """
    try:
        prices = None if row["prices"] is None else msgspec.json.decode(row["prices"], type=Prices)
        edit: AnyEdit | None = None if row["edit"] is None else edit_from_json(row["edit"])
        genome = Genome.from_json(row["genome"])
        outcome = {name: row[name] for name in _OUTCOME_COLUMNS}
        screened = msgspec.json.decode(row["screened"], type=tuple[Screened, ...])
        outcome |= {"flops": row["training_flops"], "screened": screened, "prices": prices}
        individual = {name: row[name] for name in _INDIVIDUAL_COLUMNS}
        individual |= {"inherited_flops": row["inherited_training_flops"], "edit": edit, "genome": genome}
        individual["is_enlarged"] = msgspec.convert(row["is_enlarged"], bool, strict=False)
        return msgspec.convert({**individual, "outcome": outcome}, type=Individual)
    except IndexError:  # of sqlite3.Row
        raise LineageError("the lineage lacks a column; another version of evo_topo wrote it") from None
    except (GenomeError, EditError, msgspec.MsgspecError, TypeError) as error:
        raise LineageError(f"individual {row['id']} of the lineage is damaged: {error}") from None
