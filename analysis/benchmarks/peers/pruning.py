"""Iterative pruning by Torch-Pruning (Fang et al. 2023): prune a little, train on, prune again.

One worker prunes by group magnitude, the other by group Taylor importance (Molchanov et al. 2019), each from
the founder's architecture trained by itself. The networks of all steps are candidates, so the front is the
best of both criteria. Each training is fitted to the clock: the speed of the network at hand is measured
before.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path
from typing import Literal

import torch
from msgspec import Struct
from torch import nn
from torch.fx import GraphModule

from analysis.benchmarks.peers.cells import Bench, Clock, Network, Setting
from analysis.benchmarks.rival import torch_pruning
from evo_topo.cost import count_macs
from evo_topo.evaluation import evaluate, reestimate_batchnorm
from evo_topo.genome import Genome
from evo_topo.importing import from_module
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.task import Task
from evo_topo.training import train
from evo_topo.training_end import Diverged
from populations.development import probe_split, shared_task
from populations.orders import DATA, weights_path
from populations.seeds import derive_seed
from populations.timing import most_that_fit, relative_seconds
from populations.weights import save_weights
from populations.workers import run_tasks

Criterion = Literal["magnitude", "Taylor"]
CRITERIA: tuple[Criterion, ...] = ("magnitude", "Taylor")

SETTINGS: tuple[Setting, ...] = tuple(
    {"steps": steps, "base": base, "rate": rate, "smallest": smallest}
    for steps, base, rate, smallest in (
        (5, 0.2, 1.0, 0.03),
        (9, 0.2, 1.0, 0.03),
        (14, 0.2, 1.0, 0.03),
        (9, 0.1, 1.0, 0.03),
        (9, 0.4, 1.0, 0.03),
        (9, 0.2, 0.3, 0.03),
        (9, 0.2, 1.0, 0.006),
        (12, 0.2, 1.0, 0.006),
    )
)
"""What `--tuning` compares: pruning steps; share of the time for the unpruned network; share of the learning
rate after a prune; MACs of the last step, as a share of the founder's."""
SETTING = SETTINGS[6]
"""What tuning chose."""
TIMED_STEPS = 20
"""Optimiser steps by which the speed of a network is measured."""


class Job(Struct, frozen=True):
    """One worker's whole task.

    Attributes:
        criterion: What it prunes by.
        first_id: Number of its first network.
        folder: The cell's folder.
        founder: JSON of the founder's genome.
        recipe: How it trains; examples are as many as there is time for.
        seed: Of this worker.
        probe: Training examples that the criterion looks at.
        started: See `Clock`.
        limit: See `Clock`.
        setting: See `SETTINGS`.
    """

    criterion: Criterion
    first_id: int
    folder: str
    founder: str
    recipe: Recipe
    seed: int
    probe: int
    started: float
    limit: float
    setting: Setting


class Step(Struct, frozen=True):
    """A network as a worker reports it; see `Network`."""

    id: int
    genome: str
    sha256: str
    seconds: float
    accuracy: float


def pruned(bench: Bench, setting: Setting = SETTING) -> list[Network]:
    """Prunes step by step, by both criteria side by side; the networks of all steps.

    Raises:
        ImportError: When Torch-Pruning is not installed.
    """
    import torch_pruning  # noqa: F401  (said here, before the workers would)

    config, clock = bench.config, bench.clock
    jobs = [
        Job(
            criterion=criterion,
            first_id=1000 * number,
            folder=str(bench.folder),
            founder=bench.founder.to_json(),
            recipe=config.recipe,
            seed=derive_seed(config.seed, criterion),
            probe=config.probe_examples,
            started=clock.started,
            limit=clock.limit,
            setting=setting,
        )
        for number, criterion in enumerate(CRITERIA)
    ]
    return [
        Network(step.id, Genome.from_json(step.genome), step.sha256, step.seconds, step.accuracy, True)
        for _, steps in run_tasks(prune_iteratively, jobs, bench.slots)
        for step in steps
    ]


def prune_iteratively(job: Job, device: str) -> list[Step]:
    """In a worker: trains the founder, then prunes and trains on, to geometrically spaced MACs."""
    clock, folder = Clock(job.started, job.limit), Path(job.folder)
    task = shared_task(folder / DATA, device)
    genome = Genome.from_json(job.founder)
    model: GraphModule = build(genome, job.seed)
    steps: list[Step] = []
    begun, count = clock.elapsed, int(job.setting["steps"])
    base = begun + job.setting["base"] * (clock.end - begun)
    founder_macs, probe = count_macs(genome), probe_split(task, job.probe)
    for number in range(count + 1):
        if number:
            macs = int(founder_macs * job.setting["smallest"] ** (number / count))
            smaller = torch_pruning(model, *probe, macs, job.criterion, "mean")
            genome, model = from_module(smaller, task.input_shape)
        recipe = job.recipe
        if number:
            recipe = dataclasses.replace(recipe, learning_rate=job.setting["rate"] * recipe.learning_rate)
        deadline = base + (clock.end - base) * number / count
        try:
            accuracy = train_until(deadline, clock, model, task, recipe, derive_seed(job.seed, number))
        except Diverged:
            break
        sha256 = save_weights(model, weights_path(folder, job.first_id + number))
        steps.append(Step(job.first_id + number, genome.to_json(), sha256, clock.elapsed, accuracy))
        if clock.elapsed > clock.end:
            break
    return steps


def train_until(
    deadline: float, clock: Clock, model: nn.Module, task: Task, recipe: Recipe, seed: int
) -> float:
    """Trains for as many examples as fit before a deadline, and measures.

    Args:
        deadline: Seconds after the start of the clock; at least one batch is trained.
        clock: The cell's.
        model: Changed in place.
        task: Training and validation split are used.
        recipe: How to train; its examples are replaced.
        seed: Decides batches and augmentation.

    Returns:
        Validation accuracy, with BatchNorm statistics re-estimated.

    Raises:
        Diverged: When the training does.
    """
    timed = dataclasses.replace(recipe, examples=TIMED_STEPS * recipe.batch_size)
    started = time.perf_counter()
    train(copy.deepcopy(model), task, timed, seed)
    per_example = (time.perf_counter() - started) / timed.examples
    # A pass without gradients costs a third of a training step (Kaplan et al. 2020, sec. 2.1).
    measuring = (len(task.validation.targets) + recipe.calibration_examples) * per_example / 3
    left = deadline - clock.elapsed - measuring
    examples = most_that_fit(
        lambda n: n * per_example * relative_seconds(recipe, n), left, at_least=recipe.batch_size
    )
    train(model, task, dataclasses.replace(recipe, examples=examples), seed, seconds=left)
    model.to(memory_format=torch.channels_last)  # as evo_topo's workers measure: a quarter faster
    reestimate_batchnorm(model, task, recipe.calibration_examples, seed)
    accuracy = evaluate(model, task.validation, task).accuracy
    model.to(memory_format=torch.contiguous_format)
    return accuracy
