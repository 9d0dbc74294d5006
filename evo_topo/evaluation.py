"""Looking at a network: what it answers, how well it does, and its BatchNorm statistics."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from evo_topo.hooks import in_mode
from evo_topo.splits import Split
from evo_topo.task import Task

_CALIBRATION_BATCH = 256
STEEPNESS = 5.0
"""How sharply margins count as right or wrong, relative to their mean size."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a network does on a split.

    Attributes:
        loss: Mean cross-entropy, in nats; NaN if the network yields NaN.
        accuracy: Share of examples whose largest logit is the target's.
        soft_error: The share of the others with less noise: see `soft_error`.
        correct: Bool (N,) on the CPU, in the order of the split, to compare networks in pairs.
    """

    loss: float
    accuracy: float
    soft_error: float
    correct: Tensor


def evaluate(model: nn.Module, split: Split, task: Task, batch_size: int | None = None) -> Evaluation:
    """Measures a network on a split, in evaluation mode and float32; the model is unchanged.

    Args:
        model: Maps normalised inputs (B, ...) to logits (B, classes).
        split: The examples.
        task: Says how inputs are normalised.
        batch_size: See `logits_of`.
    """
    logits = logits_of(model, split.inputs, task, batch_size)
    targets = split.targets.to(logits.device)
    correct = (logits.argmax(1) == targets).cpu()
    loss = functional.cross_entropy(logits.double(), targets).item()
    return Evaluation(loss, int(correct.sum()) / len(correct), soft_error(logits, targets), correct)


def soft_error(logits: Tensor, targets: Tensor) -> float:
    """How many examples a network gets wrong, where one that is nearly right or wrong counts in part.

    The mean of sigmoid(-5 m / mean |m|), where the margin m is by how much the target's logit is above the
    largest other one. Divided by their size, margins tell networks of any training and width apart (Jiang et
    al. 2019), while the loss rises with training on smoothed targets or a teacher's answers. It goes with
    errors on other examples better than the error rate does (`analysis/benchmarks/README.md`, digits).

    Args:
        logits: (N, classes), at least two classes.
        targets: Class of each (N,).

    Returns:
        From 0 to 1; one half where all margins are 0, NaN if a logit is.
    """
    right = logits.gather(1, targets[:, None])
    margins = (right - logits.scatter(1, targets[:, None], -math.inf)).amin(1).double()
    size = margins.abs().mean().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.sigmoid(-STEEPNESS * margins / size).mean().item()


def logits_of(model: nn.Module, inputs: Tensor, task: Task, batch_size: int | None = None) -> Tensor:
    """What a network answers, in evaluation mode; the model is unchanged.

    Args:
        model: Maps normalised inputs (B, ...) to logits (B, classes).
        inputs: Raw inputs (N, ...).
        task: Says how inputs are normalised.
        batch_size: Examples at a time; by default few on the CPU, whose caches hold them, and many on a GPU.

    Returns:
        Logits (N, classes), float32, on the device of the model.
    """
    device = device_of(model)
    batch_size = batch_size or (128 if device.type == "cpu" else 2048)
    with in_mode(model, training=False), torch.no_grad():
        batches = torch.split(inputs, batch_size)
        return torch.cat([model(task.normalise(batch.to(device))).float() for batch in batches])


def reestimate_batchnorm(model: nn.Module, task: Task, examples: int, seed: int) -> None:
    """Measures the statistics of every BatchNorm layer afresh, in place.

    They become the plain average over batches of training examples without augmentation.
    Dropout is off, as when the statistics are used. A model without BatchNorm is left alone.

    Args:
        model: The network.
        task: Its training split is used.
        examples: How many different training examples, at most all of them.
        seed: Decides which.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    count = len(task.train.targets)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:examples]
    with in_mode(model, training=False), torch.no_grad():
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
                norm.momentum = None  # torch's word for a cumulative average
            # batches of (nearly) one size, because the average weighs them alike
            for index in chosen.tensor_split(math.ceil(len(chosen) / _CALIBRATION_BATCH)):
                inputs = task.train.inputs[index.to(task.train.inputs.device)]
                model(task.normalise(inputs.to(device_of(model))))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def device_of(model: nn.Module) -> torch.device:
    """Where a network is; one without parameters counts as on the CPU."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest value; infinite between different shapes, NaN with a NaN."""
    if found.shape != expected.shape:
        return math.inf
    worst, largest = ((values.abs().max().item()) for values in (found - expected, expected))
    if worst == 0:
        return 0.0
    return worst / largest if largest else math.inf
