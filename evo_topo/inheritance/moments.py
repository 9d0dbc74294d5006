"""Optimiser state x edit -> optimiser state: moments follow the maps that weights follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evo_topo.edits import AnyEdit, Trade
from evo_topo.genome import Genome
from evo_topo.inheritance.gathering import Gathering
from evo_topo.phenotype import build

_AVERAGES = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
"""Averages of gradients and of their squares, as torch names them."""

_States = dict[str, dict[str, Any]]


def inherit_optimizer_state(
    optimizer: torch.optim.Optimizer,
    child_optimizer: torch.optim.Optimizer,
    model: nn.Module,
    child_model: nn.Module,
    genome: Genome,
    edit: AnyEdit,
) -> None:
    """Gives the child's optimiser the parent's momentum (SGD) or moments (Adam), in place.

    What a kept parameter has, it keeps; what is new has moments of zero. Copies of a unit divide its
    outgoing weights, so each one's incoming weights have half of the gradient, and of its average.
    Parameters of new nodes start without state, as the optimiser itself would start them. Masked weights have
    moments of zero, or they would not stay zero themselves.

    Args:
        optimizer: Of the parent's network, after some steps.
        child_optimizer: Of the child's network; of the same kind.
        model: The parent's network.
        child_model: The child's network.
        genome: The parent's genome.
        edit: What makes the child of the parent.

    Raises:
        EditError: When the edit does not apply.
        ValueError: When the optimiser keeps something else per parameter than the averages named here.
    """
    states = {
        name: dict(optimizer.state[parameter])
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }
    unknown = {key for state in states.values() for key in state} - {*_AVERAGES, "step"}
    if unknown:
        raise ValueError(
            f"the optimiser keeps {', '.join(sorted(unknown))}; expected only "
            f"{', '.join(_AVERAGES)} and step, as SGD and Adam do"
        )
    found, masks = _inherited(states, genome, edit), dict(child_model.named_buffers())
    for name, parameter in child_model.named_parameters():
        if name in found:
            mask = masks.get(f"{name.removesuffix('weight')}mask")
            child_optimizer.state[parameter] = {
                key: _on(parameter, value, mask) if key in _AVERAGES and value is not None else value
                for key, value in found[name].items()
            }


def _on(parameter: Tensor, moment: Tensor, mask: Tensor | None) -> Tensor:
    """A moment beside its parameter, zero where that is masked."""
    moment = moment.to(parameter.device)
    return moment if mask is None else moment.masked_fill(~mask, 0)


def _inherited(states: _States, genome: Genome, edit: AnyEdit) -> _States:
    """The child's state by parameter name, for the nodes that it has from the parent."""
    if isinstance(edit, Trade):
        return _inherited(_inherited(states, genome, edit.first), edit.first.apply(genome), edit.second)
    child = edit.apply(genome)
    channels = edit.channel_map(genome)
    with torch.device("meta"):
        shapes = dict(build(child).named_parameters())
    found: _States = {}
    for name, state in states.items():
        node = name.rpartition(".")[0]
        if name not in shapes or node not in genome.by_name:
            continue
        gathering = Gathering.of(genome.by_name[node], channels)
        found[name] = {}
        for key, value in state.items():
            if key in _AVERAGES and isinstance(value, Tensor):
                value = gathering.moment(value, value.new_zeros(shapes[name].shape))
            elif isinstance(value, Tensor):
                value = value.clone()
            found[name][key] = value
    return found
