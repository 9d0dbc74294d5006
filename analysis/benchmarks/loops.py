"""Training loops as a user of plain torch would write them: what `evo_topo.train` is measured against.

Both follow the recipe of `train` on examples like its own (Nesterov momentum, warm-up, linear decay, weight
decay of kernels alone, clipping, mirrored images); the pictures are normalised before the clock starts.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.benchmarks.synthetic import CLASSES, LAYERS, SHAPE, NetworkName
from evo_topo.bfloat16 import has_fast_bfloat16
from evo_topo.recipe import Recipe


def plain_network(name: NetworkName) -> nn.Sequential:
    """The network of `synthetic.network`, written by hand."""
    layers: list[nn.Module] = []
    channels = SHAPE[0]
    for width, stride in zip(*LAYERS[name], strict=True):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def seconds_by_hand(
    model: nn.Module, images: Tensor, targets: Tensor, recipe: Recipe, careful: bool = False
) -> float:
    """Trains a network and says how long it took.

    Args:
        model: Maps images to logits, on the device of the images.
        images: Normalised images (N, C, H, W), float32.
        targets: Their classes (N,).
        recipe: How to train; its shifts are left out.
        careful: Whether everything is on that makes it fast: channels_last, a fused optimiser, and bfloat16
            where the hardware has it.
    """
    device = images.device
    _synchronise(device)
    started = time.perf_counter()
    if careful:
        model.to(memory_format=torch.channels_last)
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": recipe.decay(sum(p.numel() for p in kernels))},
        {"params": others},
    ]
    fused = True if careful else None
    optimiser = torch.optim.SGD(groups, recipe.rate, recipe.momentum, nesterov=True, fused=fused)
    rising = round(recipe.warmup * recipe.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (
            (step + 1) / rising if step < rising else (recipe.steps - step) / (recipe.steps - rising)
        ),
    )
    low_precision = careful and has_fast_bfloat16(device)
    order = torch.randperm(len(images), device=device)
    model.train()
    for step in range(recipe.steps):
        at = step * recipe.batch % (len(images) - recipe.batch + 1)
        index = order[at : at + recipe.batch]
        batch = images[index]
        if recipe.flip:
            coins = torch.rand(len(batch), 1, 1, 1, device=device) < 0.5
            batch = torch.where(coins, batch.flip(3), batch)
        if careful:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=low_precision):
            logits = model(batch)
        loss = functional.cross_entropy(logits.float(), targets[index])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        schedule.step()
    _synchronise(device)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
