"""One whole run: folder, data, evolution, and the last measurements on the test split."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from deap import tools
from safetensors.torch import save_file
from torch import Tensor

from evo_topo.datasets import load_dataset
from evo_topo.genome import Genome
from evo_topo.task import Task, load_task, save_task
from populations.births import Birth, as_individual
from populations.config import Config, ConfigError, PresetName
from populations.evolution import REFERENCE_ID, Evolution, EvolutionError
from populations.individual import Individual, Outcome
from populations.lineage import DATABASE, Lineage
from populations.orders import DATA, START, outcome_path, weights_path
from populations.presets import PRESETS
from populations.progress import Progress, Report
from populations.records import LineageError
from populations.survivors import FRONT, TASK, task_record
from populations.testing import Stored, accuracies_on_test
from populations.workers import Crew, Slots, resolve_devices, stop_workers

FOUNDER = "founder.json"


class Entry(NamedTuple):
    """A measured network, as ``front.json`` lists it.

    Attributes:
        id: The individual's id; the founder's is 0, also where it was trained longer for comparison.
        accuracy: Validation accuracy.
        test_accuracy: Test accuracy, measured once, at the end.
        macs: Multiply-accumulates for one example.
        flops: 2 x MACs.
        params: Trainable parameters.
        genome: The network as data (JSON object).
    """

    id: int
    accuracy: float
    test_accuracy: float
    macs: int
    flops: int
    params: int
    genome: dict[str, Any]


class Result(NamedTuple):
    """What an evolution ends with.

    Attributes:
        run_dir: The run folder.
        front: Pareto front of accuracy against FLOPs, by rising FLOPs.
        founder: The founder, trained in one go with at least as many examples as anyone on the front; None
            where no comparison was asked for.
        founder_examples: That number of examples.
        logbook: DEAP's logbook of all generations.
    """

    run_dir: Path
    front: list[Entry]
    founder: Entry | None
    founder_examples: int
    logbook: tools.Logbook


def evolve(
    config: Config | PresetName = "digits",
    task: Task | None = None,
    founder: Genome | None = None,
    report: Report | None = None,
    resume: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> Result:
    """Evolves a population of networks and measures its Pareto front on the test split.

    Args:
        config: How to evolve, or the name of a preset.
        task: Data of your own (`Task.from_arrays`); None for those of the preset.
        founder: Genome to start from; None for that of the preset.
        report: Called with a `Progress` after every developed child.
        resume: Go on with the run in ``config.run_dir``.
        weights: State that the founder's training starts from, by name, as `build` of its genome has it; None
            for fresh weights.

    Returns:
        Front, founder, and the run folder, which holds everything.

    Raises:
        ConfigError: When the configuration cannot be used here.
        evo_topo.datasets.DatasetError: When the data cannot be had.
        EvolutionError: When the founder cannot be trained.
        LineageError: When the run to resume is damaged.
    """
    if isinstance(config, str):
        config = PRESETS[config].config
    devices = resolve_devices(config.devices, config.workers, config.threads)
    if weights is not None and not config.inherit:
        raise ConfigError("inherit: without it nobody keeps the weights given to start from; leave one out")
    run_dir = _prepare_folder(config, resume)
    slots = Slots(devices, config.threads, run_dir / "slots")
    with _only_driver(run_dir), Lineage(run_dir) as lineage:
        try:
            data = _shared_data(config, task, run_dir)
            _write(run_dir / TASK, task_record(data))
            founded = lineage.individuals()[:1]
            founder = founded[0].genome if founded else founder or PRESETS[config.preset].founder()
            _check_fit(founder, data)
            if weights is not None and not founded:
                save_file({name: value.contiguous() for name, value in weights.items()}, run_dir / START)
            evolution = Evolution(
                config, founder, len(data.validation.targets), lineage, slots, report or _silent
            )
            before = evolution.generations.last
            evolution.run()
            finished = evolution.generations.last == before and (run_dir / FRONT).exists()
            result = _read_result(evolution, run_dir) if finished else _finish(evolution, run_dir)
        except BaseException:  # what they are at is no longer wanted; otherwise they idle for the next run
            stop_workers()
            raise
        if task is None:  # the data of a preset can be had again
            (run_dir / DATA).unlink(missing_ok=True)
    return result


def load_config(run_dir: Path) -> Config:
    """The configuration of a run, from its folder.

    Raises:
        ConfigError: When there is none, or it is damaged.
    """
    path = run_dir / "config.json"
    try:
        return dataclasses.replace(Config.from_json(path.read_bytes()), run_dir=run_dir)
    except OSError:
        raise ConfigError(f"{run_dir} is no run folder: it holds no config.json") from None


def _silent(_: Progress) -> None:
    pass


def _prepare_folder(config: Config, resume: bool) -> Path:
    """The run's folder, with its configuration stored in it."""
    run_dir = config.run_dir or free_folder(config.preset)
    if resume:
        if config.run_dir is None:
            raise ConfigError("run_dir: expected the folder of the run to resume, got none")
        config.check_resumable(load_config(run_dir))
    elif (run_dir / DATABASE).exists():
        raise ConfigError(f"run_dir: {run_dir} holds a run already; resume it, or choose another folder")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _write(run_dir / "config.json", dataclasses.replace(config, run_dir=run_dir).to_json())
    except OSError as error:
        raise ConfigError(f"run_dir: {run_dir} cannot be written: {error.strerror}") from None
    return run_dir


def free_folder(preset: PresetName) -> Path:
    """The next free run folder under ``runs/``."""
    number = 1
    while (run_dir := Path("runs") / f"{preset}-{number:03d}").exists():
        number += 1
    return run_dir


@contextmanager
def _only_driver(run_dir: Path) -> Iterator[None]:
    """Keeps a second driver off the run; the lock goes with the process."""
    import fcntl

    with open(run_dir / "driver.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"run_dir: another process is evolving in {run_dir}") from None
        yield


def _shared_data(config: Config, task: Task | None, run_dir: Path) -> Task:
    """The task, stored where every worker maps it into memory."""
    path = run_dir / DATA
    if task is None and path.exists():
        return load_task(path)
    if task is None:
        task = load_dataset(config.preset, config.data_dir)
    save_task(task, path)
    return task


def _check_fit(founder: Genome, task: Task) -> None:
    if (founder.input_shape, founder.num_classes) != (task.input_shape, task.num_classes):
        raise ConfigError(
            f"founder: expected a network from {task.input_shape} to {task.num_classes} classes, as "
            f"{task.name} needs, got one from {founder.input_shape} to {founder.num_classes}"
        )


def _finish(evolution: Evolution, run_dir: Path) -> Result:
    """Reads the test split, once, for the front and for the founder for comparison, if there is one."""
    front = evolution.generations.front
    reference = _reference(evolution, run_dir) if evolution.config.compare else None
    evolution.report_phase("measuring on the test split")
    measured = front if reference is None else [*front, reference]
    networks = [Stored(i.id, i.genome, i.outcome.weights_sha256) for i in measured]
    tested = accuracies_on_test(networks, run_dir, evolution.config.recipe, evolution.crew.slots)
    entries = [_entry(individual, tested[individual.id]) for individual in front]
    founder, examples = None, 0
    if reference is not None:
        founder, examples = _entry(reference, tested[REFERENCE_ID])._replace(id=0), reference.outcome.examples
        _write(run_dir / FOUNDER, json.dumps({**founder._asdict(), "examples": examples}, indent=1))
    _write(run_dir / FRONT, json.dumps([entry._asdict() for entry in entries], indent=1))
    weights_path(run_dir, REFERENCE_ID).unlink(missing_ok=True)
    outcome_path(run_dir, REFERENCE_ID).unlink(missing_ok=True)
    return Result(run_dir, entries, founder, examples, evolution.generations.logbook)


def _reference(evolution: Evolution, run_dir: Path) -> Individual:
    """The founder for comparison; trained now, unless that was done during the polish."""
    path = outcome_path(run_dir, REFERENCE_ID)
    if path.exists():
        outcome = msgspec.json.decode(path.read_bytes(), type=Outcome)
    else:
        evolution.report_phase("training the founder for comparison")
        crew = Crew(evolution.crew.slots)
        crew.submit(evolution.reference_order())
        [(_, outcome)] = crew.wait()
    if outcome.status != "ok":
        raise EvolutionError(f"the founder could not be trained for comparison: {outcome.reason}")
    return as_individual(Birth(REFERENCE_ID, 0, None, None, evolution.founder, None), outcome)


def _read_result(evolution: Evolution, run_dir: Path) -> Result:
    """What a run that is finished already ended with; the test split is not read again."""
    try:
        front = [Entry(**entry) for entry in json.loads((run_dir / FRONT).read_text())]
        if not evolution.config.compare:
            return Result(run_dir, front, None, 0, evolution.generations.logbook)
        founder = json.loads((run_dir / FOUNDER).read_text())
        examples = founder.pop("examples")
        return Result(run_dir, front, Entry(**founder), examples, evolution.generations.logbook)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LineageError(f"{run_dir}: {FRONT} or {FOUNDER} is damaged: {error}") from None


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


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
