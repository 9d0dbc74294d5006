"""Least squares of one layer: its weights are refit to what it should make of what it reads."""

from __future__ import annotations

from collections.abc import Sequence

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
    wanted = -(-EQUATIONS_PER_WEIGHT * size // len(read))
    gram = weight.new_zeros(size, size, dtype=torch.float64)
    cross = weight.new_zeros(size, len(rows), dtype=torch.float64)
    mean_x, mean_z, count = gram[0].clone(), cross[0].clone(), 0
    for x, z in zip(torch.split(read, _CHUNK), torch.split(target, _CHUNK), strict=True):
        at = torch.randperm(places, generator=generator)[:wanted].to(x.device)
        x = _equations(layer, x, at)
        z = z[:, rows].reshape(len(z), len(rows), places)[:, :, at].transpose(1, 2).reshape(-1, len(rows))
        gram += x.T @ x
        cross += x.T @ z
        mean_x += x.sum(0)
        mean_z += z.sum(0)
        count += len(x)
    gram, cross, mean_x, mean_z = (total / count for total in (gram, cross, mean_x, mean_z))
    if free_mean:
        gram -= torch.outer(mean_x, mean_x)
        cross -= torch.outer(mean_x, mean_z)
    old = weight.flatten(1).T.double()
    ridge = (DAMPING * gram.diagonal().mean()).clamp(min=1e-30)
    new = old + torch.linalg.solve(gram + ridge * torch.eye(size).to(gram), cross - gram @ old)
    weight.copy_(new.T.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(mean_z - mean_x @ new)


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
