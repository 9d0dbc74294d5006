"""What a run starts from, stored in its folder before anything is trained: founder, weights, data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from evo_topo.datasets import load_dataset
from evo_topo.genome import Genome
from evo_topo.phenotype import build
from evo_topo.task import Task
from evo_topo.task_file import load_task, save_task
from populations.config import Config, ConfigError
from populations.files import CONFIG, FOUNDER, START, TASK, write_whole
from populations.lineage import DATABASE
from populations.orders import DATA
from populations.presets import PRESETS
from populations.records import LineageError
from populations.survivors import read_task, record_of


def begin(
    run_dir: Path,
    config: Config,
    task: Task | None,
    founder: Genome | None,
    weights: Mapping[str, Tensor] | None,
) -> None:
    """Stores all that a run starts from, so that it can be resumed at any time.

    Args:
        run_dir: Its folder.
        config: Of the run.
        task: The user's own data; None for those that lie in the folder, which are the user's own as well, or
            else those of the preset.
        founder: Its genome; None for that of the preset.
        weights: State that its training starts from; None for fresh weights.

    Raises:
        ConfigError: When the folder holds a run, or the founder fits neither the data nor its weights.
        OSError: When something cannot be written.
    """
    check_free(run_dir)
    founder = founder or PRESETS[config.preset].founder()
    data, is_own = task or _found_data(config, run_dir), task is not None or (run_dir / DATA).exists()
    _check_fit(founder, data)
    if weights is not None:
        _check_state(founder, weights)
    if task is not None or not is_own:
        save_task(data, run_dir / DATA)
    record = record_of(data, is_own)
    write_whole(run_dir / TASK, msgspec.json.format(msgspec.json.encode(record), indent=1))
    write_whole(run_dir / FOUNDER, founder.to_json())
    (run_dir / START).unlink(missing_ok=True)
    if weights is not None:
        try:
            save_file({name: value.contiguous() for name, value in weights.items()}, run_dir / START)
        except SafetensorError as error:
            raise OSError(f"{run_dir / START} cannot be written: {error}") from None


def check_free(run_dir: Path) -> None:
    """Checks that a folder holds no run.

    Raises:
        ConfigError: When it does.
    """
    if any((run_dir / name).exists() for name in (CONFIG, DATABASE)):
        raise ConfigError(f"run_dir: {run_dir} holds a run already; resume it, or choose another folder")


def stored_founder(run_dir: Path) -> Genome:
    """The founder of a run, from its folder.

    Raises:
        LineageError: When its genome is missing or damaged.
    """
    path = run_dir / FOUNDER
    try:
        return Genome.from_json(path.read_bytes())
    except OSError as error:
        raise LineageError(f"{path}, the founder of the run, cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise LineageError(f"{path} is damaged: {error}") from None


def stored_data(config: Config, run_dir: Path, founder: Genome, task: Task | None = None) -> Task:
    """The data of a run, stored where every worker maps them into memory.

    Args:
        config: Of the run.
        run_dir: Its folder.
        founder: Its genome.
        task: The user's own data, where they may be missing in the folder.

    Raises:
        ConfigError: When they do not fit the founder, or a run on a preset's data is given others.
        LineageError: When the user's own are missing or damaged, or those found are other data than before.
    """
    path, record = run_dir / DATA, read_task(run_dir)
    is_own = record.is_own
    if task is not None and not is_own:
        raise ConfigError("task: the run is on the data of its preset; leave it out, or start a new run")
    data, is_stored = task, False
    if data is None:
        try:
            data, is_stored = load_task(path), True
        except (OSError, ValueError) as error:
            if is_own:
                raise LineageError(f"{path}: {error}; resume with the same data as `task`") from None
            data = load_dataset(config.preset, config.data_dir)
    _check_fit(founder, data)
    if record_of(data, is_own) != record:
        raise LineageError(
            f"{run_dir}: expected the data that the run was begun with, got others than {TASK} tells of"
        )
    if not is_stored:
        save_task(data, path)
    return data


def _found_data(config: Config, run_dir: Path) -> Task:
    """Data that somebody has put into the folder, or else those of the preset."""
    path = run_dir / DATA
    if not path.exists():
        return load_dataset(config.preset, config.data_dir)
    try:
        return load_task(path)
    except ValueError as error:
        raise ConfigError(
            f"run_dir: {path}, which lay there already, is damaged: {error}; remove it"
        ) from None


def _check_state(founder: Genome, weights: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in build(founder).state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        raise ConfigError(
            f"weights: expected {wrong[0]} of shape {expected.get(wrong[0], 'none')}, "
            f"got {found.get(wrong[0], 'none')}"
        )


def _check_fit(founder: Genome, task: Task) -> None:
    if (founder.input_shape, founder.num_classes) != (task.input_shape, task.num_classes):
        raise ConfigError(
            f"founder: expected a network from {task.input_shape} to {task.num_classes} classes, as "
            f"{task.name} needs, got one from {founder.input_shape} to {founder.num_classes}"
        )
