"""One whole run: folder, data, evolution, and the last measurements on the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from evo_topo.datasets import load_dataset
from evo_topo.genome import Genome
from evo_topo.task import Task
from evo_topo.task_file import load_task, save_task
from populations.config import Config, ConfigError, PresetName
from populations.evolution import Evolution
from populations.lineage import Lineage
from populations.orders import DATA, FOUNDER, START
from populations.presets import PRESETS
from populations.progress import Progress, Report
from populations.records import LineageError
from populations.reference import COMPARISON
from populations.results import Result, measure_result, read_result, write_whole
from populations.slots import Slots, resolve_devices
from populations.survivors import FRONT, TASK, has_own_data, task_record
from populations.workers import stop_workers

CONFIG = "config.json"


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
            preset, or of the run to resume.
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
        config = _resumed(config)
    run_dir = config.run_dir or free_folder(config.preset)
    if not resume:
        _make_folder(run_dir)
    config = dataclasses.replace(config.with_ahead(len(devices)), run_dir=run_dir)
    with _only_driver(run_dir):
        if not resume:
            _begin(run_dir, config, task, founder, weights)
        elif task is not None:
            save_task(task, run_dir / DATA)
        data = _shared_data(config, run_dir)
        founder = stored_founder(run_dir)
        _check_fit(founder, data)
        write_whole(run_dir / CONFIG, config.to_json())
        slots = Slots(devices, config.threads, run_dir / "slots")
        with Lineage(run_dir) as lineage:
            result = _run(config, founder, data, lineage, slots, report or _silent)
        if not has_own_data(run_dir):  # those of a preset can be had again
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


def _begin(
    run_dir: Path,
    config: Config,
    task: Task | None,
    founder: Genome | None,
    weights: Mapping[str, Tensor] | None,
) -> None:
    """Stores all that a run starts from, so that it can be resumed at any time.

    Raises:
        ConfigError: When the folder holds a run, or the founder does not fit the data.
    """
    if (run_dir / CONFIG).exists():
        raise ConfigError(f"run_dir: {run_dir} holds a run already; resume it, or choose another folder")
    founder = founder or PRESETS[config.preset].founder()
    data = _shared_data(config, run_dir) if task is None else task
    _check_fit(founder, data)
    if task is not None:
        save_task(task, run_dir / DATA)
    write_whole(run_dir / TASK, task_record(data, is_own=task is not None))
    write_whole(run_dir / FOUNDER, founder.to_json())
    if weights is not None:
        save_file({name: value.contiguous() for name, value in weights.items()}, run_dir / START)


def _resumed(config: Config) -> Config:
    """The configuration that a run goes on with.

    Raises:
        ConfigError: When there is no such run, or it cannot go on so.
    """
    if config.run_dir is None:
        raise ConfigError("run_dir: expected the folder of the run to resume, got none")
    stored = load_config(config.run_dir)
    config = config if config.ahead is not None else dataclasses.replace(config, ahead=stored.ahead)
    config.check_resumable(stored)
    return config


def load_config(run_dir: Path) -> Config:
    """The configuration of a run, from its folder.

    Raises:
        ConfigError: When there is none, or it is damaged.
    """
    path = run_dir / CONFIG
    try:
        return dataclasses.replace(Config.from_json(path.read_bytes()), run_dir=run_dir)
    except OSError:
        raise ConfigError(f"{run_dir} is no run folder: it holds no {CONFIG}") from None


def _silent(_: Progress) -> None:
    pass


def stored_founder(run_dir: Path) -> Genome:
    """The founder of a run, from its folder.

    Raises:
        LineageError: When its genome is missing or damaged.
    """
    path = run_dir / FOUNDER
    try:
        return Genome.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LineageError(f"{path} is damaged: {error}") from None


def free_folder(preset: PresetName) -> Path:
    """Makes the next free run folder under ``runs/``.

    Raises:
        ConfigError: When it cannot be made.
    """
    for number in count(1):
        run_dir = Path("runs") / f"{preset}-{number:03d}"
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"run_dir: {run_dir} cannot be written: {error.strerror}") from None
        break
    return run_dir


def _make_folder(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir: {run_dir} cannot be written: {error.strerror}") from None


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
        except OSError:
            raise ConfigError(f"run_dir: another process is evolving in {run_dir}") from None
        yield


def _shared_data(config: Config, run_dir: Path) -> Task:
    """The data of a run, stored where every worker maps them into memory.

    Raises:
        LineageError: When the user's own are missing or damaged.
    """
    path = run_dir / DATA
    try:
        return load_task(path)
    except (OSError, ValueError) as error:
        if has_own_data(run_dir):
            raise LineageError(f"{path} is damaged: {error}; resume with the same data as `task`") from None
    data = load_dataset(config.preset, config.data_dir)
    save_task(data, path)
    return data


def _check_fit(founder: Genome, task: Task) -> None:
    if (founder.input_shape, founder.num_classes) != (task.input_shape, task.num_classes):
        raise ConfigError(
            f"founder: expected a network from {task.input_shape} to {task.num_classes} classes, as "
            f"{task.name} needs, got one from {founder.input_shape} to {founder.num_classes}"
        )
