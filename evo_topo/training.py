"""Training of one network, on one screen: the data set lives on the device, as tensors."""

import math
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from evo_topo.binary import clip_latent, latent_weights
from evo_topo.distillation import Teaching
from evo_topo.evaluation import device_of, normalised
from evo_topo.phenotype import in_mode
from evo_topo.recipe import Recipe
from evo_topo.task import Task

_CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device


@dataclass(frozen=True)
class TrainingResult:
    """What a training cost and where it ended.

    Attributes:
        examples: Training examples seen, counted with repetition.
        steps: Optimiser steps.
        seconds: Wall-clock time.
        loss: Mean training loss of the last steps (up to 20), in nats, with augmentation and
            label smoothing as the recipe asks.
        halfway_loss: The same of the second quarter of the recipe's steps, which says by half-time how
            the training will end; None where there are fewer than four steps.
    """

    examples: int
    steps: int
    seconds: float
    loss: float
    halfway_loss: float | None


class Diverged(ArithmeticError):
    """The training loss left every sensible range.

    Attributes:
        step: Optimiser steps done when it was noticed.
        value: Mean loss of steps until then, in nats.
    """

    def __init__(self, step: int, value: float) -> None:
        super().__init__(step, value)  # these arguments rebuild it in another process
        self.step, self.value = step, value

    def __str__(self) -> str:
        return f"training loss {self.value:.3g} at step {self.step}; lower the learning rate"


class Stopped(Exception):
    """The training loss was above the hurdle at half-time, and the training ended there.

    Attributes:
        result: What the training cost until then and where it stood; its halfway loss is a number.
        hurdle: The most that the halfway loss might have been, in nats.
    """

    def __init__(self, result: TrainingResult, hurdle: float) -> None:
        super().__init__(result, hurdle)  # these arguments rebuild it in another process
        self.result, self.hurdle = result, hurdle

    def __str__(self) -> str:
        return (
            f"expected a training loss of at most {self.hurdle:.4g} in the second quarter of the steps, "
            f"got {self.result.halfway_loss:.4g}; stopped at step {self.result.steps}"
        )


def train(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    device: torch.device | None = None,
    teaching: Teaching | None = None,
    hurdle: float | None = None,
) -> TrainingResult:
    """Trains a network in place: SGD with Nesterov momentum, warm-up, then linear decay to zero.

    On the CPU the same seed and number of threads give the same weights. torch's own random
    state is left as it was, and so are the training flags of the model.

    Args:
        model: Maps normalised inputs (B, ...) to logits (B, classes); float32.
        task: What to learn; its training split is used.
        recipe: How to train.
        seed: Decides batches, augmentation and dropout.
        device: Where to train; by default where the model is. The model stays there.
        teaching: A teacher's answers to learn from beside the targets, on that device.
        hurdle: The most that the halfway loss may be, in nats; None for no limit. One that is not exceeded
            changes nothing.

    Returns:
        What it cost and the loss at its end.

    Raises:
        Diverged: If the loss becomes NaN, infinite or above ten times that of a blind guess.
        Stopped: If the halfway loss is above the hurdle.
        ValueError: If the recipe shifts or flips inputs that are no images.
    """
    if (recipe.crop_padding or recipe.flip) and len(task.input_shape) != 3:
        raise ValueError(
            f"crop_padding and flip: expected images (C, H, W), got inputs {task.input_shape} "
            f"of task {task.name!r}; set crop_padding=0 and flip=False"
        )
    started = time.perf_counter()
    device = device or device_of(model)
    model.to(device).to(memory_format=torch.channels_last)
    with in_mode(model, training=True), _own_randomness(device, seed):
        generator = torch.Generator(device).manual_seed(seed)
        steps = _steps(model, task.to(device), recipe, generator, teaching)
        result = _to_the_end(steps, recipe, 10 * math.log(task.num_classes), hurdle, started)
    model.to(memory_format=torch.contiguous_format)  # as weights are stored
    return result


def _to_the_end(
    losses: Iterator[Tensor], recipe: Recipe, limit: float, hurdle: float | None, started: float
) -> TrainingResult:
    """Trains until the losses (), one a step, end or one of their means is above its limit.

    Raises:
        Diverged: When it is, or is NaN, or the halfway loss is.
        Stopped: When the halfway loss is above the hurdle.
    """
    quarter, half = recipe.steps // 4, recipe.steps // 2
    recent: deque[Tensor] = deque(maxlen=_CHECK_EVERY)
    second: list[Tensor] = []  # losses of the second quarter
    loss, halfway = math.nan, None
    for step, batch_loss in enumerate(losses, start=1):
        recent.append(batch_loss)
        if 0 < quarter < step <= half:
            second.append(batch_loss)
        if step % _CHECK_EVERY == 0 or step == recipe.steps:
            loss = _mean(recent, step, limit)
        if second and step == half:
            halfway = _mean(second, step, limit)
            if hurdle is not None and halfway > hurdle:
                spent = step * recipe.batch_size, step, time.perf_counter() - started
                raise Stopped(TrainingResult(*spent, _mean(recent, step, limit), halfway), hurdle)
    spent = recipe.steps * recipe.batch_size, recipe.steps, time.perf_counter() - started
    return TrainingResult(*spent, loss, halfway)


def _mean(losses: Collection[Tensor], step: int, limit: float) -> float:
    """Mean of losses (), which waits for the device; above its limit, or NaN, it is a divergence."""
    loss = torch.stack(tuple(losses)).mean().item()
    if not loss <= limit:  # true for NaN, too
        raise Diverged(step, loss)
    return loss


def _steps(
    model: nn.Module, task: Task, recipe: Recipe, generator: torch.Generator, teaching: Teaching | None
) -> Iterator[Tensor]:
    """Trains step by step; yields each step's loss (), still on the device."""
    device = generator.device
    optimiser, latent = _optimiser(model, recipe), latent_weights(model)
    batches = index_batches(len(task.train.targets), recipe.batch_size, recipe.steps, generator)
    for step, index in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate_factor(step, recipe.steps, recipe.warmup)
        inputs, targets = task.train.inputs[index], task.train.targets[index]
        if recipe.crop_padding or recipe.flip:
            inputs = shift_and_flip(inputs, recipe.crop_padding, recipe.flip, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = model(normalised(task, inputs)).float()
        if teaching is None:
            loss = functional.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        else:
            loss = teaching.loss(logits, targets, index, recipe.label_smoothing)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        clip_latent(latent)
        yield loss.detach()


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Learning rate of a step as a share of the largest: a linear rise, then a linear fall.

    Args:
        step: From 0 to ``steps - 1``.
        steps: Steps of the whole training.
        warmup: Share of the steps in which it rises. After the last step it would be zero.
    """
    rising = round(warmup * steps)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)


def index_batches(count: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Full batches of example indices, int64 (batch_size,), from one permutation after another.

    Args:
        count: Examples in the training split.
        batch_size: Indices in a batch; a batch may reach into the next permutation.
        steps: Number of batches.
        generator: Source of randomness; the batches lie on its device.
    """
    pool = torch.empty(0, dtype=torch.int64, device=generator.device)
    for _ in range(steps):
        while len(pool) < batch_size:
            epoch = torch.randperm(count, generator=generator, device=generator.device)
            pool = torch.cat((pool, epoch))
        yield pool[:batch_size]
        pool = pool[batch_size:]


def shift_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shifts each image by its own random offset and mirrors half of them.

    Args:
        images: Raw images (N, C, H, W), of any type, on the generator's device.
        padding: Largest shift in pixels, in each direction; what moves in is zero.
        flip: Whether to mirror left to right with probability one half.
        generator: Source of randomness.

    Returns:
        Images of the same shape and type; where nothing is asked for, the same tensor.
    """
    count, _, height, width = images.shape
    device = images.device
    draw = partial(torch.randint, size=(count, 1), generator=generator, device=device)
    if not padding:  # mirroring alone needs no index for every pixel
        return torch.where(draw(2)[:, :, None, None] == 1, images.flip(3), images) if flip else images
    rows = torch.arange(height, device=device) + draw(2 * padding + 1)
    columns = torch.arange(width, device=device) + draw(2 * padding + 1)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    padded = functional.pad(images, (padding,) * 4)
    example = torch.arange(count, device=device)[:, None, None]
    # indexing around the channel slice yields (N, H, W, C): channels_last, once permuted
    return padded[example, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays on ``device``: on the CPU it needs AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # an older torch does not tell, and then trains in float32
        found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD that decays kernels and matrices, and neither biases nor BatchNorm parameters."""
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    nesterov = recipe.momentum > 0  # torch refuses the combination with zero
    return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, nesterov=nesterov, fused=True)


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
