"""One gathering for every tensor that belongs to a parameter: rows, columns and taps by index.

Output rows are gathered by the map of a tensor's own units. Input columns are gathered by the map of
the units they read, and each weight of a column goes to one of its copies. Taps stay where they are around
the centre of the window; those at a new border are zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from evo_topo.genome import Node
from evo_topo.units import NEW, mixes_units

ChannelMap = Mapping[str, Sequence[int]]


class Gathering(NamedTuple):
    """Where the parameters of one kept node come from.

    Attributes:
        rows: Parent's output channel of each of the child's, or `NEW`; None where they are the same.
        columns: Likewise for the input channels.
    """

    rows: Sequence[int] | None
    columns: Sequence[int] | None

    @classmethod
    def of(cls, node: Node, channels: ChannelMap) -> Gathering:
        """That of the parent's node under a channel map; an empty map changes nothing."""
        if not channels:
            return cls(None, None)
        columns = channels[node.inputs[0]] if mixes_units(node) else None
        return cls(channels[node.name], columns)

    def weight(self, parent: Tensor, fresh: Tensor) -> Tensor:
        """The child's tensor: a weight, or a statistic of the channels.

        Args:
            parent: The parent's, (rows,), (rows, columns, *taps) or a scalar, which is kept.
            fresh: A new one of the child's shape: rows from nowhere stay as they are there. Columns
                from nowhere are zero. A mask (bool) is not divided, and is set in columns from nowhere.
        """
        value = self._placed(parent, fresh)
        if value.dim() < 2 or self.columns is None or _keeps_all(self.columns, parent.shape[1]):
            return value
        if value.dtype == torch.bool:
            new = torch.tensor([column == NEW for column in self.columns], device=value.device)
            return value | new.view(-1, *[1] * (value.dim() - 2))
        return value * _divided(self.columns, value)

    def moment(self, parent: Tensor, fresh: Tensor) -> Tensor:
        """The child's average of gradients or of their squares, which is zero for new parameters.

        Copies divide the outgoing weights, and with them the gradient that arrives; they divide its square
        as well, for what arrives by many weights adds up like chance.
        """
        value = self._placed(parent, torch.zeros_like(fresh))
        if value.dim() > 0 and self.rows is not None:
            value = _along(value, 0, _shares(self.rows))
        if value.dim() > 1 and self.columns is not None:
            value = _along(value, 1, torch.tensor([c != NEW for c in self.columns]))
        return value

    def _placed(self, parent: Tensor, fresh: Tensor) -> Tensor:
        """The parent's rows, columns and taps at the child's places."""
        value = parent
        if value.dim() > 2:
            value = resize_taps(value, fresh.shape[2:])
        if value.dim() > 1 and not _keeps_all(self.columns, value.shape[1]):
            assert self.columns is not None
            value = value[:, list(self.columns)]
        if value.dim() > 0 and not _keeps_all(self.rows, value.shape[0]):
            assert self.rows is not None
            new = torch.tensor([row == NEW for row in self.rows], device=value.device)
            value = torch.where(new.view(-1, *[1] * (value.dim() - 1)), fresh, value[list(self.rows)])
        return value


def _keeps_all(origins: Sequence[int] | None, width: int) -> bool:
    """Whether all channels of a tensor are kept, in their order: then nothing has to be gathered."""
    return origins is None or (len(origins) == width and list(origins) == list(range(width)))


def resize_taps(weight: Tensor, kernel: Sequence[int]) -> Tensor:
    """A weight (rows, columns, *taps) with border taps dropped, or added as zeros, to fit a kernel."""
    borders = [(new - old) // 2 for new, old in zip(kernel, weight.shape[2:], strict=True)]
    if not any(borders):
        return weight
    return functional.pad(weight, [border for border in reversed(borders) for _ in range(2)])


def _along(value: Tensor, dim: int, factors: Tensor) -> Tensor:
    """The tensor with its slices along a dimension multiplied by a factor each."""
    shape = [1] * value.dim()
    shape[dim] = -1
    return value * factors.to(value).view(shape)


def _shares(origins: Sequence[int]) -> Tensor:
    """The share of each copy: equal parts; 0 for new ones."""
    counts = Counter(origins)
    return torch.tensor([0.0 if o == NEW else 1 / counts[o] for o in origins], dtype=torch.float64)


def _divided(columns: Sequence[int], weight: Tensor) -> Tensor:
    """1 where a copy of a column keeps a weight, which one of them does, 0 at the others and in new columns.

    Copies of a unit that shared every weight would receive gradients of one direction, and hardly part
    however long they train. That one keeps it is drawn, the same way each time.
    """
    draw = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = torch.tensor(columns).view(-1, *[1] * (weight.dim() - 2))
    draw = torch.where(at == NEW, -1, draw)
    origins = at.clamp(min=0).expand_as(draw)
    most = draw.new_zeros(draw.shape[0], int(origins.max()) + 1, *draw.shape[2:])
    most.scatter_reduce_(1, origins, draw, "amax")
    return (draw == most.gather(1, origins)).to(weight)
