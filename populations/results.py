"""What a run ends with: its front, measured on the test split once, and the founder for comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import msgspec
from deap import tools

from populations.evolution import Evolution
from populations.files import COMPARISON, FRONT, write_whole
from populations.individual import Individual
from populations.records import LineageError
from populations.reference import (
    REFERENCE_ID,
    forget_reference,
    reference_from,
    reference_order,
)
from populations.survivors import Entry, read_front
from populations.testing import Stored, accuracies_on_test
from populations.workers import Crew


class Result(NamedTuple):
    """What an evolution ends with.

    Attributes:
        run_dir: The run folder.
        front: Pareto front of accuracy against FLOPs, by rising FLOPs.
        founder: The founder, trained in one go on as many examples as the longest line of descent up to its
            polish, in a timed run as was foreseen when that began; None where no comparison was asked for.
        founder_examples: That number of examples.
        logbook: DEAP's logbook of all generations.
    """

    run_dir: Path
    front: list[Entry]
    founder: Entry | None
    founder_examples: int
    logbook: tools.Logbook


def measure_result(evolution: Evolution, run_dir: Path) -> Result:
    """Reads the test split, once, for the front and for the founder for comparison, if there is one.

    Raises:
        populations.dispatch.EvolutionError: When the founder could not be trained for comparison.
    """
    front = evolution.generations.front
    reference = _reference(evolution, run_dir) if evolution.config.compare else None
    evolution.report_phase("measuring on the test split")
    measured = front if reference is None else [*front, reference]
    networks = [Stored(i.id, i.genome, i.outcome.weights_sha256) for i in measured]
    tested = accuracies_on_test(networks, run_dir, evolution.config.recipe, evolution.dispatch.crew.slots)
    entries = [_entry(individual, tested[individual.id]) for individual in front]
    founder, examples = None, 0
    if reference is not None:
        found, examples = _entry(reference, tested[REFERENCE_ID]), reference.outcome.examples
        founder = msgspec.structs.replace(found, id=0)
        write_whole(run_dir / COMPARISON, _as_json({**msgspec.structs.asdict(founder), "examples": examples}))
    write_whole(run_dir / FRONT, _as_json(entries))
    forget_reference(run_dir)
    return Result(run_dir, entries, founder, examples, evolution.generations.logbook)


def _reference(evolution: Evolution, run_dir: Path) -> Individual:
    """The founder for comparison; trained now, unless that was done during the polish."""
    examples = evolution.schedule.reference_examples(evolution.generations.finalists)
    order = reference_order(evolution.config, evolution.founder, run_dir, examples)
    outcome = order.read_outcome()
    if outcome is None:
        evolution.report_phase("training the founder for comparison")
        crew = Crew(evolution.dispatch.crew.slots)
        crew.submit(order)
        [(_, outcome)] = crew.wait()
    return reference_from(outcome, evolution.founder)


def read_result(evolution: Evolution, run_dir: Path) -> Result:
    """What a run that is finished already ended with; the test split is not read again.

    Raises:
        LineageError: When its files are damaged.
    """
    front, logbook = read_front(run_dir), evolution.generations.logbook
    if not evolution.config.compare:
        return Result(run_dir, front, None, 0, logbook)
    path = run_dir / COMPARISON
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Compared)
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise LineageError(
            f"{path} is damaged: {error}; remove it, and resume: it is measured again"
        ) from None
    founder = Entry(**{name: getattr(found, name) for name in Entry.__struct_fields__})
    return Result(run_dir, front, founder, found.examples, logbook)


class _Compared(Entry, frozen=True):
    """The founder for comparison, as ``founder.json`` holds it."""

    examples: int


def _as_json(values: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(values), indent=1)


def _entry(individual: Individual, test_accuracy: float) -> Entry:
    return Entry(
        id=individual.id,
        accuracy=individual.outcome.accuracy or 0.0,
        test_accuracy=test_accuracy,
        macs=individual.macs,
        flops=individual.flops,
        params=individual.params,
        genome=json.loads(individual.genome.to_json()),
    )
