"""Training of one network, on one screen: the data set lives on the device, as tensors."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evo_topo.batches import Sampler
from evo_topo.captured import CapturedStep, stepper
from evo_topo.descent import weights_of
from evo_topo.distillation import Teaching
from evo_topo.evaluation import device_of
from evo_topo.hooks import in_mode
from evo_topo.recipe import Recipe
from evo_topo.stepping import Step
from evo_topo.task import Task
from evo_topo.training_end import Diverged, Stopped, TrainingResult

_CHECK_EVERY = 20  # steps between looks at the loss, and steps whose mean it is


def train(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    device: torch.device | None = None,
    teaching: Teaching | None = None,
    hurdle: float | None = None,
    seconds: float = math.inf,
    is_further: bool = False,
) -> TrainingResult:
    """Trains a network in place: SGD with Nesterov momentum, warm-up, then linear decay to zero.

    On the CPU the same seed and number of threads give the same weights, unless a time limit cuts a
    training short: then the rate decays by the clock (budgeted training: Li, Yumer & Ramanan 2020). torch's
    own random state is left as it was, and so are the training flags of the model.

    Args:
        model: Maps normalised inputs (B, ...) to logits (B, classes); float32.
        task: What to learn; its training split is used.
        recipe: How to train.
        seed: Decides batches, augmentation and dropout.
        device: Where to train; by default where the model is. The model stays there.
        teaching: A teacher's answers to learn from beside the targets, on that device.
        hurdle: The most that the halfway loss may be, in nats; None for no limit. One that is not exceeded
            changes nothing.
        seconds: For how long it may train, but for one step at least. A limit that the recipe's examples
            stay within at any time, counted in proportion, changes nothing.
        is_further: Whether the network is trained already: it has diverged where it is no better than a
            blind guess.

    Returns:
        What it cost and the loss at its end.

    Raises:
        Diverged: If the loss becomes NaN, infinite or above ten times that of a blind guess; above that of
            a blind guess where `is_further`.
        Stopped: If the halfway loss is above the hurdle.
        ValueError: If the recipe shifts, flips or erases inputs that are no images.
    """
    if (recipe.crop_padding or recipe.flip or recipe.erase) and len(task.input_shape) != 3:
        raise ValueError(
            f"crop_padding, flip and erase: expected images (C, H, W), got inputs {task.input_shape} "
            f"of task {task.name!r}; set crop_padding=0, flip=False and erase=0"
        )
    started = time.perf_counter()
    count = len(task.train.targets)
    recipe = dataclasses.replace(recipe, erase=recipe.erasing(weights_of(model), count))
    device = device or device_of(model)
    model.to(device).to(memory_format=torch.channels_last)
    with (
        in_mode(model, training=True),
        _uncounted(model),
        _own_randomness(device, seed),
        closing(stepper(model, task.to(device), recipe, teaching)) as step,
    ):
        generator = torch.Generator(device).manual_seed(seed)
        sampler = Sampler(count, recipe, step.rows, generator, step.last_losses)
        steps = _steps(step, sampler, recipe, started + seconds)
        # each look waits for the device: a GPU has an epoch's steps to run before
        every = _CHECK_EVERY if device.type == "cpu" else count // recipe.batch
        blind = math.log(task.num_classes) if teaching is None else teaching.blind_loss
        limit = (1 if is_further else 10) * blind
        result = _to_the_end(steps, recipe, limit, hurdle, started, max(every, _CHECK_EVERY))
    model.to(memory_format=torch.contiguous_format)  # as weights are stored
    return result


def _to_the_end(
    losses: Iterator[Tensor],
    recipe: Recipe,
    limit: float,
    hurdle: float | None,
    started: float,
    every: int,
) -> TrainingResult:
    """Trains until the losses (), one a step, end or one of their means is above its limit.

    The mean is looked at every so many steps, and at the end.

    Raises:
        Diverged: When it is, or is NaN, or the halfway loss is.
        Stopped: When the halfway loss is above the hurdle.
    """
    quarter, half = recipe.steps // 4, recipe.steps // 2
    recent: deque[Tensor] = deque(maxlen=_CHECK_EVERY)
    second: list[Tensor] = []  # losses of the second quarter
    step, loss, halfway = 0, math.nan, None
    for step, batch_loss in enumerate(losses, start=1):
        recent.append(batch_loss)
        if 0 < quarter < step <= half:
            second.append(batch_loss)
        if step % every == 0:
            loss = _mean(recent, step, limit)
        if second and step == half:
            halfway = _mean(second, step, limit)
            if hurdle is not None and halfway > hurdle:
                spent = step * recipe.batch, step, time.perf_counter() - started
                raise Stopped(TrainingResult(*spent, _mean(recent, step, limit), halfway), hurdle)
    loss = _mean(recent, step, limit) if recent else math.nan
    spent = step * recipe.batch, step, time.perf_counter() - started
    return TrainingResult(*spent, loss, halfway)


def _mean(losses: Collection[Tensor], step: int, limit: float) -> float:
    """Mean of losses (), which waits for the device; above its limit, or NaN, it is a divergence."""
    loss = torch.stack(tuple(losses)).mean().item()
    if not loss <= limit:  # true for NaN, too
        raise Diverged(step, loss)
    return loss


def _steps(step: Step | CapturedStep, sampler: Sampler, recipe: Recipe, deadline: float) -> Iterator[Tensor]:
    """Trains step by step until a time of `perf_counter`; yields each step's loss (), still on the device."""
    begun, number = time.perf_counter(), 0
    for batches in sampler:
        step.load(batches)
        for _ in batches.examples:
            place = max(number, recipe.steps * _spent(begun, deadline)) if number else 0
            if place >= recipe.steps:
                return
            sampler.place = place / recipe.steps
            step.set_rate(recipe.rate * rate_factor(place, recipe.steps, recipe.warmup))
            yield step()
            number += 1


def _spent(begun: float, deadline: float) -> float:
    """Share of the time from a beginning to a deadline that is over."""
    return (time.perf_counter() - begun) / max(deadline - begun, 1e-9)


def rate_factor(step: float, steps: int, warmup: float) -> float:
    """Learning rate of a step as a share of the largest: a linear rise, then a linear fall.

    Args:
        step: From 0 to ``steps - 1``, or between two of them where the clock is ahead.
        steps: Steps of the whole training.
        warmup: Share of the steps in which it rises. After the last step it would be zero.
    """
    rising = round(warmup * steps)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)


@contextmanager
def _uncounted(model: nn.Module) -> Iterator[None]:
    """Spares BatchNorm layers the count of their batches, which none with a fixed momentum reads.

    It would be one more operation per layer and step.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.momentum is not None]
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = count


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Seeds what dropout draws from, and puts torch's random state back afterwards."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # not torch.manual_seed, which reaches every device of the computer
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
