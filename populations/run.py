"""One whole run: folder, data, evolution, and the last measurements on the test split."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from torch import Tensor

from evo_topo.genome import Genome
from evo_topo.task import Task
from populations.config import Config, ConfigError, PresetName
from populations.evolution import Evolution
from populations.files import COMPARISON, CONFIG, FRONT, write_whole
from populations.lineage import DATABASE, Lineage
from populations.orders import DATA
from populations.presets import PRESETS
from populations.progress import Progress, Report
from populations.results import Result, measure_result, read_result
from populations.slots import Slots, resolve_devices
from populations.starting import begin, stored_data, stored_founder
from populations.survivors import read_task
from populations.workers import stop_workers


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
        task: Data of your own (`Task.from_arrays`), which stay in the run folder; None for those of the
            preset, or of the run to resume, which are taken anyway where they are there.
        founder: Genome to start from; None for that of the preset. A run to resume has its own.
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
    if resume:
        config = resumed(config)
    run_dir = config.run_dir or free_folder(config.preset)
    is_new = config.run_dir is None or _make_folder(run_dir)
    config = dataclasses.replace(config.for_slots(len(devices)), run_dir=run_dir)
    with _only_driver(run_dir):
        try:
            if not resume:
                begin(run_dir, config, task, founder, weights)
            founder = stored_founder(run_dir)
            data = stored_data(config, run_dir, founder, task if resume else None)
            write_whole(run_dir / CONFIG, config.to_json())
        except BaseException:
            if is_new and not (run_dir / CONFIG).exists():  # nothing is in it that anybody would miss
                shutil.rmtree(run_dir, ignore_errors=True)
            raise
        slots = Slots(devices, config.threads, run_dir / "slots")
        with Lineage(run_dir) as lineage:
            result = _run(config, founder, data, lineage, slots, report or _silent)
        if not read_task(run_dir).is_own:  # those of a preset can be had again
            (run_dir / DATA).unlink(missing_ok=True)
    return result


def _run(
    config: Config, founder: Genome, data: Task, lineage: Lineage, slots: Slots, report: Report
) -> Result:
    """Evolves, and measures what came of it unless that is done."""
    try:
        evolution = Evolution(config, founder, len(data.validation.targets), lineage, slots, report)
        before = evolution.generations.last
        evolution.run()
        files = [FRONT, COMPARISON] if config.compare else [FRONT]
        is_done = evolution.generations.last == before and all((lineage.run_dir / f).exists() for f in files)
        return (read_result if is_done else measure_result)(evolution, lineage.run_dir)
    except BaseException:  # what they are at is no longer wanted; otherwise they idle for the next run
        stop_workers()
        raise


def load_config(run_dir: Path) -> Config:
    """The configuration of a run, from its folder.

    Raises:
        ConfigError: When there is none, or it is damaged.
    """
    path = run_dir / CONFIG
    try:
        return dataclasses.replace(Config.from_json(path.read_bytes()), run_dir=run_dir)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{run_dir} is no run folder: it holds no {CONFIG}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def resumed(config: Config) -> Config:
    """The configuration that a run goes on with.

    Raises:
        ConfigError: When there is no such run, or it cannot go on so.
    """
    run_dir = config.run_dir
    if run_dir is None:
        raise ConfigError("run_dir: expected the folder of the run to resume, got none")
    stored = load_config(run_dir)
    ahead = stored.ahead if config.ahead is None else config.ahead
    heirs = stored.heirs if config.heirs is None else config.heirs
    config = dataclasses.replace(config, ahead=ahead, heirs=heirs)
    config.check_resumable(stored)
    if config.compare != stored.compare and (run_dir / DATABASE).exists():
        with Lineage(run_dir, read_only=True) as lineage:
            begun, generations = lineage.polishing(), [i.generation for i in lineage.individuals()]
        if begun in generations:  # others would be polished
            raise ConfigError("compare: the run was stopped while survivors were polished; finish that first")
    return config


def _silent(_: Progress) -> None:
    pass


def free_folder(preset: PresetName) -> Path:
    """Makes the next free run folder under ``runs/``.

    Raises:
        ConfigError: When it cannot be made.
    """
    _make_folder(Path("runs"))
    for number in count(1):
        run_dir = Path("runs") / f"{preset}-{number:03d}"
        if not run_dir.exists() and _make_folder(run_dir):
            break
    return run_dir


def _make_folder(path: Path) -> bool:
    """Makes a folder unless it is there; returns whether it had to.

    Raises:
        ConfigError: When it cannot be made.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise ConfigError(f"run_dir: expected a folder, got {path}, which is none") from None
        return False
    except OSError as error:
        raise ConfigError(f"run_dir: {path} cannot be written: {error.strerror}") from None
    return True


@contextmanager
def _only_driver(run_dir: Path) -> Iterator[None]:
    """Keeps a second driver off the run; the lock goes with the process."""
    import fcntl

    path = run_dir / "driver.lock"
    try:
        path.touch()
    except OSError as error:
        raise ConfigError(f"run_dir: {run_dir} cannot be written: {error.strerror}") from None
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"run_dir: another process is evolving in {run_dir}") from None
        except OSError as error:
            raise ConfigError(f"run_dir: {path} cannot be locked: {error.strerror}") from None
        yield
