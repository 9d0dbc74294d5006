"""Survivors that train on, and the founder for comparison, which trains as long."""

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

RATES = (1.0, 0.2, 0.04)
"""Shares of the learning rate that a training is tried with, one after the other, until it does not diverge.
With the last one, Fashion-MNIST's networks train in large batches at half the rate of its children, which
they have survived."""


def train_further(
    order: Order,
    model: GraphModule,
    task: Task,
    recipe: Recipe,
    teaching: Teaching | None,
    device: torch.device,
) -> tuple[GraphModule, TrainingResult]:
    """Trains a network for long; anew and slower where it diverges: what a survivor knows is worth keeping.

    Long trainings in large batches have the largest rates, and refit mutants have weights of any size.

    Args:
        order: Names its parent, whose weights it begins with, or is that of a founder.
        model: The network with these weights.
        task: What to learn.
        recipe: How.
        teaching: A teacher's answers, or None.
        device: Where.

    Returns:
        The network, and what all its training cost.

    Raises:
        Diverged: When the slowest training diverges as well.
    """
    started, lost = time.perf_counter(), 0
    for rate in RATES:
        slower = dataclasses.replace(recipe, learning_rate=rate * recipe.learning_rate)
        left = order.seconds - (time.perf_counter() - started)
        try:
            is_further = order.parent is not None
            result = train(
                model, task, slower, order.seed, device, teaching, seconds=left, is_further=is_further
            )
        except Diverged as failure:
            if rate == RATES[-1]:
                raise
            lost += failure.step * recipe.batch
            _, model = parent_network(order, device)
        else:
            break
    seconds = time.perf_counter() - started
    if order.parent is None:  # a founder that begins anew has seen nothing before
        lost = 0
    return model, dataclasses.replace(result, examples=result.examples + lost, seconds=seconds)
