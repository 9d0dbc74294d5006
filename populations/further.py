"""Survivors that train on."""

from __future__ import annotations

import dataclasses
import time

import torch
from torch.fx import GraphModule

from evo_topo.distillation import Teaching
from evo_topo.recipe import Recipe
from evo_topo.task import Task
from evo_topo.training import train
from evo_topo.training_end import Diverged, TrainingResult
from populations.conception import parent_network
from populations.orders import Order

SLOWER = 0.2
"""Share of the learning rate with which a training begins again that diverged."""


def train_further(
    order: Order,
    model: GraphModule,
    task: Task,
    recipe: Recipe,
    teaching: Teaching | None,
    device: torch.device,
) -> tuple[GraphModule, TrainingResult]:
    """Trains a survivor on; once more and slower where it diverges: what it has learned is worth keeping.

    Long trainings in large batches have the largest rates, and refit mutants have weights of any size.

    Args:
        order: Names its parent, whose weights it begins with.
        model: The network with these weights.
        task: What to learn.
        recipe: How.
        teaching: A teacher's answers, or None.
        device: Where.

    Returns:
        The network, and what all its training cost.

    Raises:
        Diverged: When the slower training diverges as well.
    """
    started = time.perf_counter()
    try:
        result = train(
            model, task, recipe, order.seed, device, teaching, seconds=order.seconds, is_further=True
        )
        return model, result
    except Diverged as lost:
        _, model = parent_network(order, device)
        slower = dataclasses.replace(recipe, learning_rate=SLOWER * recipe.learning_rate)
        left = order.seconds - (time.perf_counter() - started)
        result = train(model, task, slower, order.seed, device, teaching, seconds=left, is_further=True)
        examples, seconds = result.examples + lost.step * recipe.batch, time.perf_counter() - started
        return model, dataclasses.replace(result, examples=examples, seconds=seconds)
