"""One gathering for every tensor that belongs to a parameter: rows, columns and taps by index.

Output rows are gathered by the map of a tensor's own units. Input columns are gathered by the map of
the units they read, and the copies of a column share its weight (the shares sum to one). Taps stay where
they are around the centre of the window; those at a new border are zero.
"""

from __future__ import annotations

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
        first_share: Share of a column that the first of its copies takes.
    """

    rows: Sequence[int] | None
    columns: Sequence[int] | None
    first_share: float = 1.0

    @classmethod
    def of(cls, node: Node, channels: ChannelMap, first_share: float) -> Gathering:
        """That of the parent's node under a channel map; an empty map changes nothing."""
        if not channels:
            return cls(None, None)
        columns = channels[node.inputs[0]] if mixes_units(node) else None
        return cls(channels[node.name], columns, first_share)

    def weight(self, parent: Tensor, fresh: Tensor) -> Tensor:
        """The child's tensor: a weight, or a statistic of the channels.

        Args:
            parent: The parent's, (rows,), (rows, columns, *taps) or a scalar, which is kept.
            fresh: A new one of the child's shape: rows from nowhere stay as they are there. Columns
                from nowhere are zero. A mask (bool) has no shares, and is set in columns from nowhere.
        """
        value = self._placed(parent, fresh)
        if value.dim() < 2 or self.columns is None or _keeps_all(self.columns, parent.shape[1]):
            return value
        if value.dtype == torch.bool:
            new = torch.tensor([column == NEW for column in self.columns], device=value.device)
            return value | new.view(-1, *[1] * (value.dim() - 2))
        return _along(value, 1, _shares(self.columns, self.first_share))

    def moment(self, parent: Tensor, fresh: Tensor, power: int) -> Tensor:
        """The child's average of gradients to a power, which is zero for new parameters.

        A copy that takes a share of the outgoing weights takes that share of the gradient that arrives.
        """
        value = self._placed(parent, torch.zeros_like(fresh))
        if value.dim() > 0 and self.rows is not None:
            value = _along(value, 0, _shares(self.rows, self.first_share) ** power)
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


def _shares(origins: Sequence[int], first_share: float) -> Tensor:
    """The share of each copy: `first_share` for the first, the rest in equal parts; 0 for new ones."""
    counts: dict[int, int] = {}
    for origin in origins:
        counts[origin] = counts.get(origin, 0) + 1
    seen: set[int] = set()
    shares = []
    for origin in origins:
        copies = counts[origin]
        if origin == NEW:
            shares.append(0.0)
        elif copies == 1:
            shares.append(1.0)
        elif origin in seen:
            shares.append((1 - first_share) / (copies - 1))
        else:
            shares.append(first_share)
        seen.add(origin)
    return torch.tensor(shares, dtype=torch.float64)
