"""Values of a recorded network in terms of genome nodes: tensors, views of them, and stored tensors.

Calls that only move elements (view, permute, chunk, ...) are not understood one by one. They are carried
out on a tensor of element numbers, and what came out says what they did: nothing, a flattening, a selection
of channels, a crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from evo_topo.importing.tracing import BATCH
from evo_topo.ops import AnyOp, Flatten, Pad, Pool, Select, Shape


@dataclass(frozen=True)
class Stored:
    """A parameter or buffer of the module, or a constant computed from buffers.

    Attributes:
        path: Its name in the module's state; None where it was computed.
        tensor: Its value.
        is_parameter: Whether it is, or depends on, a parameter.
    """

    path: str | None
    tensor: Tensor
    is_parameter: bool


@dataclass(frozen=True)
class Value:
    """A tensor with a batch dimension: the output of a genome node, or a view of it.

    Attributes:
        name: The node.
        shape: Shape of the node's output for one example.
        index: For each element of the view (batch, ...), the number of the element in the node's output for
            the whole batch; None for the output itself.
    """

    name: str
    shape: Shape
    index: Tensor | None = None

    @property
    def size(self) -> Shape:
        """Shape for one example, as the recorded code sees it."""
        return self.shape if self.index is None else tuple(self.index.shape[1:])

    def numbers(self) -> Tensor:
        """Element numbers (batch, ...)."""
        return element_numbers(self.shape) if self.index is None else self.index

    @property
    def is_reshaped(self) -> bool:
        """Whether it holds exactly the node's elements in their order."""
        if self.index is None:
            return True
        return self.index.shape[0] == BATCH and _is_same(self.index.flatten(), element_numbers(self.shape))


def element_numbers(shape: Shape) -> Tensor:
    """Numbers of the elements of a batch of tensors of this shape."""
    numbers = torch.arange(BATCH * torch.Size(shape).numel())
    return numbers.view(BATCH, *shape)


def viewed(name: str, shape: Shape, size: Shape) -> Value:
    """A node's output as the recorded code sees it: possibly in another shape."""
    if shape == size:
        return Value(name, shape)
    return Value(name, shape, element_numbers(shape).view(BATCH, *size))


def find_ops(value: Value) -> list[AnyOp] | None:
    """Operations that make a view from its node's output; None where the vocabulary has none."""
    if value.index is None:
        return []
    numbers = _of_one_example(value)
    if numbers is None or 0 in numbers.shape:
        return None
    if numbers.dim() == 1:
        flatten: list[AnyOp] = [Flatten()] if len(value.shape) > 1 else []
        every = torch.arange(torch.Size(value.shape).numel())
        return flatten if _is_same(numbers, every) else [*flatten, Select(tuple(numbers.tolist()))]
    if numbers.dim() != len(value.shape):
        return None
    return _find_window(numbers, value.shape)


def without_expansion(value: Value) -> Value:
    """A view repeated over its extents, as the view with extents of 1 that it repeats."""
    if value.index is None or value.index.dim() < 3:
        return value
    at: tuple[Any, ...] = (..., *[slice(1)] * (value.index.dim() - 2))
    point = value.index[at]
    return replace(value, index=point) if bool((value.index == point).all()) else value


def _is_same(first: Tensor, second: Tensor) -> bool:
    return first.numel() == second.numel() and torch.equal(first.flatten(), second.flatten())


def _of_one_example(value: Value) -> Tensor | None:
    """Element numbers of the first example; None where the view mixes examples."""
    index = value.index
    assert index is not None
    if index.shape[0] != BATCH:
        return None
    firsts = torch.arange(BATCH) * torch.Size(value.shape).numel()
    expected = index[:1] + firsts.view(-1, *[1] * (index.dim() - 1))
    return index[0] if torch.equal(index, expected) else None


def _find_window(numbers: Tensor, shape: Shape) -> list[AnyOp] | None:
    """Selection of channels, crop and stride that give these element numbers of a tensor."""
    area = torch.Size(shape[1:]).numel()
    channels = numbers.flatten(1)[:, 0] // area
    starts, steps, room = [], [], area
    grid = channels.view(-1, *[1] * (numbers.dim() - 1)) * area
    first = int(numbers.flatten()[0]) % area
    for dim, extent in enumerate(shape[1:], 1):
        room //= extent
        starts.append(first // room)
        first %= room
        count = numbers.shape[dim]
        step = int(numbers.select(dim, min(1, count - 1)).flatten()[0] - numbers.flatten()[0]) // room
        steps.append(step if count > 1 else 1)
        places = starts[-1] + steps[-1] * torch.arange(count)
        grid = grid + (places * room).view(-1, *[1] * (numbers.dim() - 1 - dim))
    if not torch.equal(grid, numbers) or min(steps) < 1:
        return None
    ops: list[AnyOp] = []
    if channels.tolist() != list(range(shape[0])):
        ops.append(Select(tuple(channels.tolist())))
    ends = [
        start + step * (count - 1) + 1
        for start, step, count in zip(starts, steps, numbers.shape[1:], strict=True)
    ]
    before = tuple([-start for start in starts])
    after = tuple([end - extent for end, extent in zip(ends, shape[1:], strict=True)])
    if max(after) > 0:  # a view of other extents, which happens to go on row by row
        return None
    counts = [(extent - 1) // step + 1 for extent, step in zip(shape[1:], steps, strict=True)]
    if any(before) or counts != list(numbers.shape[1:]):
        ops.append(Pad(before, after))
    if max(steps) > 1:
        ops.append(Pool((1,) * len(steps), "max", tuple(steps)))
    return ops
