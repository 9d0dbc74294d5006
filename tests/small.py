"""A small real task and a config that evolves on it within seconds."""

import dataclasses
import functools
from pathlib import Path

from sklearn.datasets import load_wine
from torch import Tensor

from evo_topo.datasets import load_dataset
from evo_topo.genome import Genome
from evo_topo.recipe import Recipe
from evo_topo.splits import Split
from evo_topo.task import Task
from populations.config import Config
from populations.founders import conv_net
from populations.presets import PRESETS


def small_task() -> Task:
    """The first few hundred of the real digits."""
    task = load_dataset("digits")

    def head(split: Split, count: int) -> Split:
        return Split(split.inputs[:count].clone(), split.targets[:count].clone())

    return dataclasses.replace(
        task, train=head(task.train, 256), validation=head(task.validation, 128), test=head(task.test, 100)
    )


@functools.cache
def wine_task() -> Task:
    """178 wines of three cultivars, by 13 measurements each."""
    data = load_wine()
    return Task.from_arrays("wine", data.data, data.target)


def tensors_of(task: Task) -> list[Tensor]:
    """Everything that a task holds."""
    return [*task.train, *task.validation, *task.test, task.mean, task.std]


def small_founder() -> Genome:
    return conv_net((1, 8, 8), 10, (6, 8, 8), (1, 2, 1))


def small_config(run_dir: Path | None = None, **changes: object) -> Config:
    settings = {
        "recipe": Recipe(examples=256, batch_size=32, learning_rate=0.05, calibration_examples=128),
        "founder_examples": 1024,
        "polish_examples": 512,
        "generations": 2,
        "parents": 4,
        "offspring": 4,
        "accuracy_floor": 0.2,
        "workers": 2,
        "devices": "cpu",
        "run_dir": run_dir,
        "train_on": 0.25,
        "example_exponent": 0.5,
        "doubling": 2,
    }
    return dataclasses.replace(PRESETS["digits"].config, **{**settings, **changes})
