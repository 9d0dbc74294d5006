"""What making a price list takes, beside training."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import torch
from msgspec import Struct

from analysis.benchmarks.machine import peak_memory
from evo_topo.edits import legal_edits
from evo_topo.genome import Genome
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.saliency import price
from evo_topo.splits import Split
from evo_topo.task import Task
from evo_topo.training import train
from populations.founders import residual_net


class CostInfo(Struct, frozen=True):
    """What pricing costs beside training, for a ResNet-20 on 32 x 32 pixels.

    Attributes:
        edits: Edits priced.
        pricing_seconds: CPU time for all of them.
        training_seconds: CPU time of training on 3,000 examples.
        pricing_bytes: Peak memory that pricing adds.
        training_bytes: Peak memory that a training step at batch size 256 adds.
    """

    edits: int
    pricing_seconds: float
    training_seconds: float
    pricing_bytes: int
    training_bytes: int


def cost_info(examples: int) -> CostInfo:
    """CPU seconds and peak memory, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found = []
    for job in (_pricing_job, _training_job, _step_job):
        with context.Pool(1) as pool:
            found.append(pool.apply(job, (examples,)))
    (edits, seconds, size), (_, training, _), (_, _, step) = found
    return CostInfo(edits, seconds, training, size, step)


def _cifar_like(examples: int) -> tuple[Genome, Task]:
    """A ResNet-20, and random pictures: what they show changes no cost."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (examples, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(inputs, torch.randint(10, (examples,), generator=generator))
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.25)
    return residual_net((3, 32, 32), 10, (16, 32, 64), 3), Task("random", split, split, split, 10, mean, std)


def _cost(job: Callable[[], object]) -> tuple[float, int]:
    """CPU seconds of a job on one thread, and by how much it raises this process's peak memory, in bytes."""
    torch.set_num_threads(1)  # threads that wait for others take CPU time too
    before, started = peak_memory(), time.process_time()
    job()
    return time.process_time() - started, peak_memory() - before


def _pricing_job(examples: int) -> tuple[int, float, int]:
    genome, task = _cifar_like(examples)
    model, edits = build(genome), list(legal_edits(genome))
    inputs = task.normalise(task.train.inputs)
    return len(edits), *_cost(lambda: price(model, genome, edits, inputs, task.train.targets))


def _training_job(examples: int) -> tuple[int, float, int]:
    genome, task = _cifar_like(3000)
    recipe = Recipe(examples=3000, batch_size=64, learning_rate=0.01)
    return 0, *_cost(lambda: train(build(genome), task, recipe, 0))


def _step_job(examples: int) -> tuple[int, float, int]:
    genome, task = _cifar_like(256)
    recipe = Recipe(examples=512, batch_size=256, learning_rate=0.01)
    return 0, *_cost(lambda: train(build(genome), task, recipe, 0))
