"""The costly exact measure: remove units, look at the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from evo_topo.genome import Genome
from evo_topo.hooks import in_mode
from evo_topo.saliency.gates import masked
from evo_topo.units import unit_table


@torch.inference_mode()
def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor, batch_size: int = 256) -> float:
    """Mean cross-entropy in evaluation mode, over normalised inputs and their classes."""
    batches = zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)
    total = 0.0
    with in_mode(model, training=False):
        for batch, labels in batches:
            total += float(F.cross_entropy(model(batch), labels, reduction="sum"))
    return total / len(inputs)


def ablation(
    model: nn.Module,
    genome: Genome,
    units: dict[str, list[int]],
    inputs: Tensor,
    targets: Tensor,
    before: float | None = None,
) -> float:
    """Measured loss increase when the given units (by group) are removed together.

    Args:
        model: Network of `genome`.
        genome: Its genome.
        units: Units by group.
        inputs: Normalised inputs (examples, *input_shape).
        targets: Class of each example (examples,).
        before: The loss with all units, where it is known already; saves one of two passes.
    """
    if before is None:
        before = mean_loss(model, inputs, targets)
    with masked(model, genome, units):
        return mean_loss(model, inputs, targets) - before


def brute_force(model: nn.Module, genome: Genome, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Measured loss increase of removing each unit alone: one pass over the data per unit."""
    before = mean_loss(model, inputs, targets)
    found = {}
    for group in unit_table(genome).groups.values():
        losses = torch.empty(group.width, dtype=torch.float64)
        for unit in range(group.width):
            losses[unit] = ablation(model, genome, {group.name: [unit]}, inputs, targets, before)
        found[group.name] = losses
    return found
