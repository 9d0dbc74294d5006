"""One whole run: folder, data, evolution, and the last measurements on the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from evo_topo.datasets import load_dataset
from evo_topo.genome import Genome
from evo_topo.task import Task
from evo_topo.task_file import load_task, save_task
from populations.config import Config, ConfigError, PresetName
from populations.evolution import Evolution
from populations.lineage import DATABASE, Lineage
from populations.orders import DATA, START
from populations.presets import PRESETS
from populations.progress import Progress, Report
from populations.results import Result, measure_result, read_result, write_whole
from populations.slots import Slots, resolve_devices
from populations.survivors import FRONT, TASK, task_record
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
    config, run_dir = _prepare_folder(config, resume, len(devices))
    slots = Slots(devices, config.threads, run_dir / "slots")
    with _only_driver(run_dir), Lineage(run_dir) as lineage:
        try:
            data = _shared_data(config, task, run_dir)
            write_whole(run_dir / TASK, task_record(data))
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
            result = read_result(evolution, run_dir) if finished else measure_result(evolution, run_dir)
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


def _prepare_folder(config: Config, resume: bool, slots: int) -> tuple[Config, Path]:
    """The run's folder, and its configuration, which is stored in it."""
    run_dir = config.run_dir or free_folder(config.preset)
    if resume:
        if config.run_dir is None:
            raise ConfigError("run_dir: expected the folder of the run to resume, got none")
        stored = load_config(run_dir)
        config = config if config.ahead is not None else dataclasses.replace(config, ahead=stored.ahead)
        config.check_resumable(stored)
    elif (run_dir / DATABASE).exists():
        raise ConfigError(f"run_dir: {run_dir} holds a run already; resume it, or choose another folder")
    config = dataclasses.replace(config.with_ahead(slots), run_dir=run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_whole(run_dir / "config.json", config.to_json())
    except OSError as error:
        raise ConfigError(f"run_dir: {run_dir} cannot be written: {error.strerror}") from None
    return config, run_dir


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
