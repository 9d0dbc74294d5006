"""Least squares of one layer: its weights are refit to what it should make of what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from evo_topo.genome import Genome, Node
from evo_topo.ops import Norm

DAMPING = 1e-2
"""Ridge on the change of a layer's weights, as a share of the mean second moment of what it reads."""
EQUATIONS_PER_WEIGHT = 100
"""Of more positions in space than these, some are drawn: neighbours tell nearly the same."""
_CHUNK = 128  # examples whose patches are held at once


def has_free_mean(genome: Genome, node: Node) -> bool:
    """Whether a shift of each output channel can be made up: by a bias, or by the BatchNorm behind it."""
    readers = [genome.by_name[name].op for name in genome.readers[node.name]]
    return bool(getattr(node.op, "bias", False)) or all(isinstance(op, Norm) for op in readers)


@torch.no_grad()
def fit_layer(
    layer: nn.Module,
    read: Tensor,
    target: Tensor,
    rows: Sequence[int],
    free_mean: bool,
    generator: torch.Generator,
) -> None:
    """Refits a layer's weights, and its bias where it has one, in place.

    Solves ``min |X w - z|^2 + damping |w - w_0|^2`` from the weights w_0 that it has.

    Args:
        layer: A plain Conv of one group or Linear.
        read: What it reads, (examples, channels, ...).
        target: What it should make, (examples, channels, ...).
        rows: Which of the target's channels, one for each output.
        free_mean: Of `has_free_mean`.
        generator: Draws the positions in space that large maps are fit on.
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    size, places = weight[0].numel(), target.shape[2:].numel()
    wanted = min(places, -(-EQUATIONS_PER_WEIGHT * size // len(read)))
    chunks = _chunks(layer, read, target[:, rows], wanted, generator)
    old = weight.flatten(1).T.double()
    solve = _by_equations if len(read) * wanted < size else _by_weights
    new, mean_x, mean_z = solve(chunks, old, free_mean)
    weight.copy_(new.T.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(mean_z - mean_x @ new)


def _chunks(
    layer: nn.Module, read: Tensor, target: Tensor, wanted: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of X and z, some examples at once: (rows, weights) and (rows, outputs)."""
    places = target.shape[2:].numel()
    for x, z in zip(torch.split(read, _CHUNK), torch.split(target, _CHUNK), strict=True):
        at = torch.randperm(places, generator=generator)[:wanted].to(x.device)
        z = z.reshape(*z.shape[:2], places)[:, :, at].transpose(1, 2).flatten(0, 1)
        yield _equations(layer, x, at), z


def _by_weights(
    chunks: Iterable[tuple[Tensor, Tensor]], old: Tensor, free_mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The new weights and the means of X and z, by the normal equations: one system of (weights, weights)."""
    gram, cross, count = old.new_zeros(len(old), len(old)), torch.zeros_like(old), 0
    mean_x, mean_z = gram[0].clone(), cross[0].clone()
    for x, z in chunks:
        gram += x.T @ x
        cross += x.T @ z
        mean_x += x.sum(0)
        mean_z += z.sum(0)
        count += len(x)
    gram, cross, mean_x, mean_z = (total / count for total in (gram, cross, mean_x, mean_z))
    if free_mean:
        gram -= torch.outer(mean_x, mean_x)
        cross -= torch.outer(mean_x, mean_z)
    ridge = (DAMPING * gram.diagonal().mean()).clamp(min=1e-30)
    change = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), cross - gram @ old)
    return old + change, mean_x, mean_z


def _by_equations(
    chunks: Iterable[tuple[Tensor, Tensor]], old: Tensor, free_mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same where there are fewer equations than weights: one system of (equations, equations).

    ``(X^T X + r)^-1 X^T = X^T (X X^T + r)^-1``, so a classifier of large maps takes little memory.
    """
    x, z = (torch.cat(parts).double() for parts in zip(*chunks, strict=True))
    mean_x, mean_z, count = x.mean(0), z.mean(0), len(x)
    if free_mean:
        x, z = x - mean_x, z - mean_z
    ridge = (DAMPING * x.square().mean()).clamp(min=1e-30)
    kernel = x @ x.T / count + ridge * torch.eye(count).to(x)
    change = x.T @ torch.linalg.solve(kernel, (z - x @ old) / count)
    return old + change, mean_x, mean_z


def _equations(layer: nn.Module, read: Tensor, at: Tensor) -> Tensor:
    """What a layer multiplies with its weights, one row per example and position: (rows, weights)."""
    if isinstance(layer, nn.Linear):
        return read
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    kernel, strides, dilations = layer.kernel_size, layer.stride, layer.dilation
    assert not isinstance(layer.padding, str)
    paddings: list[int] = [side for extent in layer.padding[::-1] for side in (extent, extent)]
    windows = F.pad(read, paddings)
    for dim, size in enumerate(kernel):
        windows = windows.unfold(dim + 2, (size - 1) * dilations[dim] + 1, strides[dim])
        windows = windows[..., :: dilations[dim]]
    if len(kernel) == 1:
        patches = windows[:, :, at]
    else:
        patches = windows[:, :, at // windows.shape[3], at % windows.shape[3]]
    return patches.transpose(1, 2).reshape(len(read) * len(at), -1)
