"""Derivatives of the loss with respect to unit gates, example by example.

Think of a gate (a factor, now 1) on a unit wherever a node reads it. One forward pass and one backward pass
give, for all of them at once, the derivative of ``sum(seed * logits)`` along the change ``d = -a`` that
closing the gate of a unit with activation ``a`` makes. The derivative is summed over all places where a
unit is read and over space *before* anything is squared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evo_topo.curvature import seeded_gradients
from evo_topo.genome import Genome
from evo_topo.hooks import hook_reads, in_mode
from evo_topo.units import mixes_units, unit_table


class GateProbe:
    """Hooks a model so that gate derivatives can be read off; use as a context manager.

    Inside the context the model is in evaluation mode, its parameters take no gradient, and its BatchNorms
    pass gradients on by their factors alone, which makes a backward pass as cheap as a forward pass.

    Attributes:
        columns: For each unit group, its slice of the columns; units in order.
        width: Number of columns.
    """

    def __init__(self, model: nn.Module, genome: Genome) -> None:
        self.model = model
        self.genome = genome
        table = unit_table(genome)
        self.columns: dict[str, slice] = {}
        self.width = 0
        for group in table.groups.values():
            self.columns[group.name] = slice(self.width, self.width + group.width)
            self.width += group.width
        self._reads: dict[str, Tensor] = {}  # what each unit-mixing node read, by node
        self._places = {node.name: self._place(node.inputs[0]) for node in genome.nodes if mixes_units(node)}

    def _place(self, tensor: str) -> tuple[Tensor, Tensor]:
        """Channels of a tensor that belong to units, and their columns."""
        members = unit_table(self.genome).members[tensor]
        found = [
            (channel, self.columns[member[0]].start + member[1])
            for channel, member in enumerate(members)
            if member is not None
        ]
        channels, columns = zip(*found, strict=True) if found else ((), ())
        return torch.tensor(channels, dtype=torch.long), torch.tensor(columns, dtype=torch.long)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in self._places:
                stack.enter_context(hook_reads(self.model, name, self._keep_read(name)))
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    stack.callback(parameter.requires_grad_, True)
                    parameter.requires_grad_(False)
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    stack.callback(delattr, module, "forward")
                    frozen = partial(_FrozenNorm.apply, _factor(module), module.forward)
                    module.forward = frozen  # type: ignore[method-assign]
            stack.enter_context(in_mode(self.model, training=False))
            self._undo = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        self._reads = {}

    # A view is a new node of the autograd graph: its gradient is that of this read alone.
    def _keep_read(self, name: str):  # type: ignore[no-untyped-def]
        def hook(read: Tensor) -> Tensor:
            self._reads[name] = read.view_as(read)
            return self._reads[name]

        return hook

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (examples, classes) of normalised inputs, with the graph for `derivatives`."""
        with torch.enable_grad():
            logits: Tensor = self.model(inputs.detach().requires_grad_())
        return logits

    def derivatives(self, logits: Tensor, seed: Tensor) -> Tensor:
        """Derivative of each example's ``<seed, logits>`` along every gate's change.

        Args:
            logits: What `forward` just gave, (examples, classes).
            seed: Weight of each logit, of the same shape.

        Returns:
            Tensor (examples, columns); the columns are described by `columns`.
        """
        return self._table(seeded_gradients(logits, seed, list(self._reads.values())), logits.dtype)

    def _table(self, grads: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """The derivatives (examples, columns) that follow from the gradients at all that is read."""
        table = torch.zeros(len(grads[0]), self.width, dtype=dtype, device=grads[0].device)
        for (name, read), grad in zip(self._reads.items(), grads, strict=True):
            channels, columns = (index.to(table.device) for index in self._places[name])
            change = -_sum_space(grad, read.detach(), dtype)
            table.index_add_(1, columns, change[:, channels])
        return table


class _FrozenNorm(torch.autograd.Function):
    """A BatchNorm of fixed statistics; torch's own backward pass takes several times as long for it."""

    @staticmethod
    def forward(ctx: Any, factor: Tensor, norm: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return norm(inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        (factor,) = ctx.saved_tensors
        return None, None, grad * factor.to(grad.dtype).view(-1, *[1] * (grad.dim() - 2))


def _factor(norm: _BatchNorm) -> Tensor:
    """What each channel is multiplied by in evaluation mode."""
    assert norm.running_var is not None
    return norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()


def _sum_space(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Product summed over all but examples and channels: (examples, channels)."""
    product = a * b  # whatever the layout; einsum takes ten times as long in channels_last
    return product.to(dtype) if a.dim() == 2 else product.flatten(2).sum(2, dtype=dtype)


@contextmanager
def masked(model: nn.Module, genome: Genome, units: dict[str, list[int]]) -> Iterator[None]:
    """Within the context, the given units (or their signs, for a binary layer) are zero where they are read.

    Args:
        model: Network of `genome`.
        genome: Its genome.
        units: Units by group.
    """
    gone = {(group, unit) for group, chosen in units.items() for unit in chosen}
    members = unit_table(genome).members
    with ExitStack() as stack:
        for node in genome.nodes:
            if not mixes_units(node):
                continue
            channels = [c for c, member in enumerate(members[node.inputs[0]]) if member in gone]
            if channels:
                stack.enter_context(hook_reads(model, node.name, _zero_channels(channels)))
        yield


def _zero_channels(channels: list[int]):  # type: ignore[no-untyped-def]
    def hook(read: Tensor) -> Tensor:
        read = read.clone()
        read[:, channels] = 0
        return read

    return hook
