"""What the benchmark of pruning in one go compares: each prunes a trained network to a budget of MACs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn

from analysis.benchmarks.rival import Criterion, torch_pruning
from analysis.benchmarks.subject import Subject
from evo_topo.inheritance import inherit
from evo_topo.saliency import (
    GateProbe,
    GateStatistics,
    as_edit,
    cheapest_units,
    magnitude,
    prune_to,
    reconstruct,
)


def ours(subject: Subject, macs: int, steps: int, compensate: bool) -> nn.Module:
    """Greedy OBD with interactions, in steps."""
    model, genome, inputs, targets = subject
    return prune_to(model, genome, macs, inputs, targets, steps, compensate).model


def magnitude_refit(subject: Subject, macs: int) -> nn.Module:
    """Units of the smallest weights per MAC, survivors refit: what compensation alone is worth."""
    model, genome, inputs, _ = subject
    norms = magnitude(model, genome)  # relative to the group's mean, as layers differ in scale
    prices = torch.cat([found / found.mean().clamp(min=1e-30) for found in norms.values()])
    columns = GateProbe(model, genome).columns
    additive = GateStatistics(prices, torch.zeros(1, len(prices)), columns)
    edit = as_edit(additive, cheapest_units(additive, genome, macs))
    child = inherit(model, genome, edit)
    reconstruct(child, model, genome, edit, inputs)
    return child


def theirs(
    subject: Subject, macs: int, criterion: Criterion, normalizer: Literal["mean"] | None
) -> nn.Module:
    """Global pruning by Torch-Pruning."""
    model, _, inputs, targets = subject
    return torch_pruning(model, inputs, targets, macs, criterion, normalizer)


MethodName = Literal[
    "ours",
    "ours, one step",
    "ours, not compensated",
    "magnitude, compensated",
    "Torch-Pruning, magnitude, normalised",
    "Torch-Pruning, magnitude, raw",
    "Torch-Pruning, Taylor, normalised",
    "Torch-Pruning, Taylor, raw",
    "Torch-Pruning, Hessian, normalised",
    "Torch-Pruning, Hessian, raw",
]
METHODS: dict[MethodName, Callable[[Subject, int], nn.Module]] = {
    "ours": partial(ours, steps=6, compensate=True),
    "ours, one step": partial(ours, steps=1, compensate=True),
    "ours, not compensated": partial(ours, steps=6, compensate=False),
    "magnitude, compensated": magnitude_refit,
    "Torch-Pruning, magnitude, normalised": partial(theirs, criterion="magnitude", normalizer="mean"),
    "Torch-Pruning, magnitude, raw": partial(theirs, criterion="magnitude", normalizer=None),
    "Torch-Pruning, Taylor, normalised": partial(theirs, criterion="Taylor", normalizer="mean"),
    "Torch-Pruning, Taylor, raw": partial(theirs, criterion="Taylor", normalizer=None),
    "Torch-Pruning, Hessian, normalised": partial(theirs, criterion="Hessian", normalizer="mean"),
    "Torch-Pruning, Hessian, raw": partial(theirs, criterion="Hessian", normalizer=None),
}
