"""Parent state x edit -> child state: one rule for every edit.

Output rows are gathered by the map of a tensor's own units. Input columns are gathered by the map of
the units they read, and the copies of a column share its weight (the shares sum to one). Nodes that the
parent lacks start as the identity. Weights, masks and BatchNorm statistics go through the same gathering.
Where a sparse layer then has fewer connections than its genome says, or more, some are added at zero
or masked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evo_topo.binary import binarised, debinarised
from evo_topo.edits import AnyEdit, GrowConnections, PruneConnections, SplitUnits
from evo_topo.genome import Genome, Node
from evo_topo.masked import MASKED
from evo_topo.ops import Conv, Linear, Norm
from evo_topo.phenotype import build, in_mode
from evo_topo.saliency import kernel_gradient, layer_obd
from evo_topo.units import channel_origins, mixes_units


def inherit(
    model: nn.Module,
    genome: Genome,
    edit: AnyEdit,
    probe: Tensor | None = None,
    targets: Tensor | None = None,
) -> nn.Module:
    """Builds the child of an edit with the parent's trained state.

    In evaluation mode the child of a split computes what its parent does, and the child of a prune
    what its parent computes with those units masked to zero wherever they are read.

    Args:
        model: The parent's network, built from `genome`; it stays as it is.
        genome: The parent's genome.
        edit: The mutation.
        probe: Optional network inputs ``(examples, *genome.input_shape)``. The statistics of an
            inserted BatchNorm are taken from them, so that it is close to the identity in training
            mode as well; without them it is so in evaluation mode only. `PruneConnections` takes OBD's
            curvature from them.
        targets: Optional class of each example of the probe (examples,), for the gradient by which
            `GrowConnections` chooses.

    Returns:
        The child's network, ``build(edit.apply(genome))`` with inherited state, on the parent's
        device, in its dtype and mode.

    Raises:
        EditError: When the edit does not apply.
    """
    child = edit.apply(genome)
    child_model = build(child)
    reference = next(model.parameters())
    child_model.to(device=reference.device, dtype=reference.dtype)
    unit_map = edit.unit_map(genome)
    origins = channel_origins(genome, unit_map) if unit_map else None
    first_share = edit.share if isinstance(edit, SplitUnits) else 1.0
    inserted = []
    with torch.no_grad():
        for node in child.nodes:
            parent = genome.by_name.get(node.name)
            if parent is None:
                inserted.append(node)
                _set_identity(child_model, node)
            elif isinstance(node.op, Conv | Linear | Norm):
                source, target = (m.get_submodule(node.name) for m in (model, child_model))
                _gather(source, target, *_channels(parent, origins), first_share)
                if isinstance(target, MASKED):
                    target.set_connections(*_criteria(model, node.name, edit, probe, targets))
    child_model.train(model.training)
    for node in inserted:
        if isinstance(node.op, Norm) and probe is not None:
            _match_statistics(child_model, child_model.get_submodule(node.name), probe)
    return child_model


def _channels(node: Node, origins: dict[str, list[int]] | None) -> tuple[list[int] | None, list[int] | None]:
    """Parent channels of a node's rows and of its columns; None where they are the same."""
    if origins is None:
        return None, None
    return origins[node.name], origins[node.inputs[0]] if mixes_units(node) else None


def _gather(
    source: nn.Module,
    target: nn.Module,
    rows: list[int] | None,
    columns: list[int] | None,
    first_share: float,
) -> None:
    """Copies parameters and buffers: rows by index, columns by index times their share."""
    state = _state_for(target, source)
    for name, value in target.state_dict().items():
        parent = state[name]
        if parent.dim() > 0 and rows is not None:
            parent = parent[rows]
        if parent.dim() > 1 and columns is not None:
            parent = parent[:, columns]
            if parent.is_floating_point():  # a mask has no shares
                shares = _shares(columns, first_share).to(parent)
                parent = parent * shares.view(-1, *[1] * (parent.dim() - 2))
        value.copy_(parent)


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


def _criteria(
    model: nn.Module, layer: str, edit: AnyEdit, probe: Tensor | None, targets: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """What decides which connections a layer keeps and which it grows; None is magnitude, or chance."""
    if probe is None or not isinstance(edit, PruneConnections | GrowConnections) or edit.layer != layer:
        return None, None
    if isinstance(edit, GrowConnections):
        return None, None if targets is None else kernel_gradient(model, layer, probe, targets).abs()
    return layer_obd(model, layer, probe) if edit.criterion == "obd" else None, None


def _shares(columns: list[int], first_share: float) -> Tensor:
    """The share of each copy of a column: `first_share` for the first, the rest in equal parts."""
    counts = torch.bincount(torch.tensor(columns))
    seen: set[int] = set()
    shares = []
    for column in columns:
        copies = int(counts[column])
        if copies == 1:
            shares.append(1.0)
        elif column in seen:
            shares.append((1 - first_share) / (copies - 1))
        else:
            shares.append(first_share)
        seen.add(column)
    return torch.tensor(shares, dtype=torch.float64)


def _set_identity(model: nn.Module, node: Node) -> None:
    """Makes a new layer compute its input (Net2DeeperNet, Chen et al. 2016, sec. 2.2)."""
    if not isinstance(node.op, Conv | Linear | Norm):
        return
    module = model.get_submodule(node.name)
    assert isinstance(module.weight, Tensor)
    if isinstance(node.op, Norm):  # running mean 0 and variance 1 are torch's defaults
        module.weight.fill_((1 + node.op.eps) ** 0.5)
    elif isinstance(node.op, Linear):
        nn.init.eye_(module.weight)
    else:
        nn.init.dirac_(module.weight)
    if not isinstance(node.op, Norm) and module.bias is not None:
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


@torch.no_grad()
def _match_statistics(model: nn.Module, norm: nn.Module, probe: Tensor) -> None:
    """Sets a BatchNorm's statistics from data, and its scale and shift to undo them exactly."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        with in_mode(model, training=False):
            model(probe)
    finally:
        handle.remove()
    dims = [d for d in range(seen[0].dim()) if d != 1]
    variance, mean = torch.var_mean(seen[0], dims, correction=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    # A hair less than the mean, so that no rounding lifts a ReLU's zero, whose sign a binary layer may read.
    norm.bias.copy_(mean * (1 - 8 * torch.finfo(mean.dtype).eps))
    norm.weight.copy_((variance + norm.eps).sqrt())
