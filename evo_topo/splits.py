"""Splits of a data set: what is in them, whether they can be learned from, and how they are made."""

from typing import NamedTuple

import torch
from torch import Tensor

SPLITS = ("train", "validation", "test")
_CHUNK = 4096  # examples looked at together, so that checks need little memory


class Split(NamedTuple):
    """Examples of one purpose: ``inputs`` (N, ...) and the class ``targets`` (N,), int64."""

    inputs: Tensor
    targets: Tensor


def check_split(where: str, split: Split, num_classes: int) -> None:
    """Raises ValueError unless the split can be learned from."""
    inputs, targets = split
    if inputs.dtype not in (torch.uint8, torch.float32) or not 2 <= inputs.ndim <= 4:
        raise ValueError(
            f"{where}: expected uint8 or float32 inputs (N, F), (N, C, L) or (N, C, H, W), "
            f"got {inputs.dtype} {tuple(inputs.shape)}"
        )
    if targets.dtype != torch.int64 or targets.shape != inputs.shape[:1]:
        raise ValueError(
            f"{where}: expected one int64 target for each of {len(inputs)} inputs, "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
    if not inputs.numel():
        raise ValueError(f"{where}: expected at least one example, got {tuple(inputs.shape)}")
    low, high = (int(t) for t in targets.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{where}: expected targets in 0..{num_classes - 1}, got {low}..{high}; number the classes from 0"
        )
    if inputs.dtype == torch.float32 and not all(c.isfinite().all() for c in torch.split(inputs, _CHUNK)):
        raise ValueError(f"{where}: expected finite inputs, got NaN or infinity; clean them first")


def mean_std(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel (C,), in float32; std is 1 where it would be 0."""
    count = inputs.numel() // inputs.shape[1]
    dims = [d for d in range(inputs.ndim) if d != 1]
    mean = torch.zeros(inputs.shape[1], dtype=torch.float64)
    for chunk in torch.split(inputs.cpu(), _CHUNK):
        mean += chunk.double().sum(dims) / count
    variance = torch.zeros_like(mean)
    centre = mean.view((-1,) + (1,) * (inputs.ndim - 2))
    for chunk in torch.split(inputs.cpu(), _CHUNK):
        variance += (chunk.double() - centre).square_().sum(dims) / count
    # a constant channel (the corner pixels of a digit) carries nothing: leave its scale alone
    std = variance.sqrt()
    std[std <= 1e-7 * mean.abs()] = 1.0
    return mean.float(), std.float()


def stratified_order(targets: Tensor, seed: int) -> Tensor:
    """An order of the examples (N,) in which every class is spread evenly from start to end.

    The k-th of a class's n examples, in random order, stands at (k + u) / n with one random u
    per class; wherever the line is cut, each part holds every class in proportion.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(targets), generator=generator)
    position = torch.empty(len(targets), dtype=torch.float64)
    for value in torch.unique(targets).tolist():
        members = shuffled[targets[shuffled] == value]
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        position[members] = (torch.arange(len(members)) + offset) / len(members)
    return shuffled[position[shuffled].argsort(stable=True)]


def split_sizes(count: int, fractions: tuple[float, float, float]) -> list[int]:
    """Numbers of train, validation and test examples."""
    if not all(0 < share < 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected three positive shares of sum 1, got {fractions}")
    validation, test = (round(count * share) for share in fractions[1:])
    if min(count - validation - test, validation, test) < 1:
        raise ValueError(f"expected examples enough for fractions {fractions}, got {count}")
    return [count - validation - test, validation, test]
