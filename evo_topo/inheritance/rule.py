"""Parent state x edit -> child state: one rule for every edit.

Nodes that the parent has keep their state, gathered by the edit's maps. Nodes that it lacks start as their
edit says: as the identity, without effect, or in closed form from the weights of those they replace.
Where a sparse layer then has fewer connections than its genome says, or more, some are added at zero
or masked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from evo_topo.binary import binarised, debinarised
from evo_topo.edits import AddUnits, AnyEdit, Trade
from evo_topo.genome import Genome, Node
from evo_topo.inheritance.connections import connection_scores
from evo_topo.inheritance.directions import direct_new_units, layer_readings
from evo_topo.inheritance.gathering import ChannelMap, Gathering
from evo_topo.inheritance.probe import Probe
from evo_topo.inheritance.starting import start_new_nodes
from evo_topo.inheritance.statistics import settle_norms
from evo_topo.masked import Masked, set_connections
from evo_topo.ops import Conv, Linear, Norm
from evo_topo.phenotype import build, build_some
from evo_topo.units import NEW


def inherit(model: nn.Module, genome: Genome, edit: AnyEdit, probe: Probe | None = None) -> GraphModule:
    """Builds the child of an edit with the parent's trained state.

    In evaluation mode the child of an edit that preserves the function computes what its parent does, and
    that of a prune of units, branches, kernels or connections what its parent computes with these at zero.
    Factors and products of layers are the nearest that there are.

    Args:
        model: The parent's network, built from `genome`; it stays as it is.
        genome: The parent's genome.
        edit: The mutation.
        probe: Optional examples. Incoming weights of new units are computed from them, and the statistics
            of a new BatchNorm, so that an inserted layer is close to the identity in training mode as
            well; without them it is so in evaluation mode only. `PruneConnections` takes OBD's curvature
            from them (magnitudes without), `GrowConnections` the gradient of masked weights (chance without).

    Returns:
        The child's network, ``build(edit.apply(genome))`` with inherited state, on the parent's
        device, in its dtype and mode.

    Raises:
        EditError: When the edit does not apply.
    """
    if isinstance(edit, Trade):
        between = inherit(model, genome, edit.first, probe)
        return inherit(between, edit.first.apply(genome), edit.second, probe)
    child = edit.apply(genome)
    child_model = build(child, getattr(edit, "seed", 0))
    reference = next(model.parameters())
    child_model.to(device=reference.device, dtype=reference.dtype)
    _take_over(model, genome, edit, child_model, child, child.nodes, probe)
    child_model.train(model.training)
    if probe is not None:
        if isinstance(edit, AddUnits) and edit.directions != "random":
            direct_new_units(model, genome, edit, child_model, layer_readings(model, genome, probe))
        settle_norms(child_model, new_norms(genome, child, edit.channel_map(genome)), probe.inputs)
    return child_model


def inherit_some(
    model: nn.Module,
    genome: Genome,
    edit: AnyEdit,
    child: Genome,
    nodes: Sequence[Node],
    probe: Probe | None = None,
) -> nn.Module:
    """Modules of some nodes of a child, with what they inherit: enough to run these alone.

    Args:
        model: The parent's network.
        genome: The parent's genome.
        edit: The mutation; no trade.
        child: ``edit.apply(genome)``.
        nodes: Some of the child's nodes, all that the parent lacks among them.
        probe: Optional examples, which say what connections a layer keeps or gains; nothing else.

    Returns:
        A module that holds theirs under their names, in evaluation mode, without gradients.
    """
    part = build_some(child, nodes, getattr(edit, "seed", 0))
    reference = next(model.parameters())
    part.to(device=reference.device, dtype=reference.dtype)
    _take_over(model, genome, edit, part, child, nodes, probe)
    return part.eval().requires_grad_(False)


@torch.no_grad()
def _take_over(
    model: nn.Module,
    genome: Genome,
    edit: AnyEdit,
    child_model: nn.Module,
    child: Genome,
    nodes: Sequence[Node],
    probe: Probe | None,
) -> None:
    """Gives each of these nodes of the child its state, in place."""
    channels = edit.channel_map(genome)
    for node in nodes:
        parent = genome.by_name.get(node.name)
        if parent is not None and isinstance(node.op, Conv | Linear | Norm):
            gathering = Gathering.of(parent, channels)
            source, target = (m.get_submodule(node.name) for m in (model, child_model))
            state = _state_for(target, source)
            for name, value in target.state_dict().items():
                value.copy_(gathering.weight(state[name], value))
            if isinstance(target, Masked):
                set_connections(target, *connection_scores(model, node.name, edit, probe))
    start_new_nodes(model, genome, edit, child_model, child)


def _state_for(target: nn.Module, source: nn.Module) -> dict[str, Tensor]:
    """The source's state in the terms of a target that may be of another precision or newly sparse."""
    state, names = dict(source.state_dict()), target.state_dict().keys()
    if "scale" in names and "scale" not in state:
        state = binarised(state)
    elif "scale" in state and "scale" not in names:
        state = debinarised(state)
    if "mask" in names and "mask" not in state:
        state["mask"] = torch.ones_like(state["weight"], dtype=torch.bool)
    return state


def new_norms(genome: Genome, child: Genome, channels: ChannelMap) -> dict[str, list[int] | None]:
    """Norms with new channels, in node order, and these; None where the whole Norm is new."""
    new: dict[str, list[int] | None] = {}
    for node in child.nodes:
        if isinstance(node.op, Norm):
            origins = channels.get(node.name, ())
            if node.name not in genome.by_name:
                new[node.name] = None
            elif NEW in origins:
                new[node.name] = [at for at, origin in enumerate(origins) if origin == NEW]
    return new
