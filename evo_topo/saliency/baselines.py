"""The criteria that OBD is measured against. Each gives, per unit group, a tensor (units,) of importance."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from evo_topo.edits import PruneLayer
from evo_topo.genome import Genome
from evo_topo.hooks import in_mode
from evo_topo.prices import Prices, UnitPrices
from evo_topo.saliency.gates import GateProbe
from evo_topo.units import mixes_units, unit_table


def magnitude(model: nn.Module, genome: Genome) -> dict[str, Tensor]:
    """L2 norm of all weights that make a unit, as Han et al. (2015) rank single weights by their size."""
    found = {}
    for group in unit_table(genome).groups.values():
        squares = torch.zeros(group.width, dtype=torch.float64)
        for maker, channels in group.makers.items():
            weight = model.get_submodule(maker).weight
            assert isinstance(weight, Tensor)
            rows = weight.detach().double().cpu().flatten(1).square().sum(1)
            squares += torch.stack([rows[list(held)].sum() for held in channels])
        found[group.name] = squares.sqrt()
    return found


def norm_scale(model: nn.Module, genome: Genome) -> dict[str, Tensor]:
    """Mean absolute BatchNorm scale of a unit's channels (Network Slimming, Liu et al. 2017)."""
    table = unit_table(genome)
    totals = {name: torch.zeros(group.width, dtype=torch.float64) for name, group in table.groups.items()}
    counts = {name: torch.zeros_like(total) for name, total in totals.items()}
    for name, module in model.named_children():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for scale, member in zip(module.weight.tolist(), table.members[name], strict=True):
                if member is not None:
                    totals[member[0]][member[1]] += abs(scale)
                    counts[member[0]][member[1]] += 1
    return {name: total / counts[name].clamp(min=1) for name, total in totals.items()}


def apoz(model: nn.Module, genome: Genome, inputs: Tensor) -> dict[str, Tensor]:
    """One minus the Average Percentage of Zeros of a unit where it is read (Hu et al. 2016, eq. 1).

    Args:
        model: Network of `genome`.
        genome: Its genome.
        inputs: Normalised inputs (examples, *input_shape).
    """
    table = unit_table(genome)
    zeros = {name: torch.zeros(group.width, dtype=torch.float64) for name, group in table.groups.items()}
    sizes = {name: torch.zeros_like(total) for name, total in zeros.items()}

    def count(tensor: str):  # type: ignore[no-untyped-def]
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            read = args[0].transpose(0, 1).flatten(1)
            share = (read == 0).double().mean(1).tolist()
            for value, member in zip(share, table.members[tensor], strict=True):
                if member is not None:
                    zeros[member[0]][member[1]] += value
                    sizes[member[0]][member[1]] += 1

        return hook

    with ExitStack() as stack:
        for node in genome.nodes:
            if mixes_units(node):
                module = model.get_submodule(node.name)
                stack.enter_context(module.register_forward_pre_hook(count(node.inputs[0])))
        stack.enter_context(in_mode(model, training=False))
        stack.enter_context(torch.inference_mode())
        model(inputs)
    return {name: 1 - total / sizes[name].clamp(min=1) for name, total in zeros.items()}


class LabelGradients:
    """Criteria made of the per-example gate gradients of the true labels.

    Attributes:
        taylor: Mean of ``|gradient x activation|`` per example (Molchanov et al. 2017, eq. 8), summed over a
            map's places rather than averaged, as layers are compared with one another.
        mean_taylor: ``|mean gradient x activation|``: signs cancel, so little is left.
        empirical_fisher: ``1/2 mean (gradient x activation)^2`` (Theis et al. 2018, eq. 9); neither GGN
            nor Hessian.
    """

    def __init__(
        self, model: nn.Module, genome: Genome, inputs: Tensor, targets: Tensor, batch_size: int = 256
    ) -> None:
        """Takes one forward and one backward pass over normalised `inputs` and their classes."""
        with GateProbe(model, genome) as probe:
            tables = []
            for batch, labels in zip(
                torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True
            ):
                logits = probe.forward(batch)
                p = logits.detach().softmax(1)
                seed = p.scatter_add(1, labels[:, None], -torch.ones_like(p[:, :1]))
                tables.append(probe.derivatives(logits, seed).double().cpu())
        table = torch.cat(tables)
        by_group = {name: table[:, where] for name, where in probe.columns.items()}
        self.taylor = {name: part.abs().mean(0) for name, part in by_group.items()}
        self.mean_taylor = {name: part.mean(0).abs() for name, part in by_group.items()}
        self.empirical_fisher = {name: 0.5 * part.square().mean(0) for name, part in by_group.items()}


def magnitude_prices(model: nn.Module, genome: Genome) -> Prices:
    """A price list by weight magnitude: the control that ranks without looking at the loss.

    Magnitudes are scaled to a mean of one per group, since layers differ in scale for no reason that
    the loss knows of. Bypassing a layer costs as much as all units of a group of its width.
    """
    units = {}
    for name, norms in magnitude(model, genome).items():
        scaled = norms / norms.mean().clamp(min=1e-30)
        order = scaled.argsort(stable=True)
        units[name] = UnitPrices(tuple(order.tolist()), tuple(scaled[order].cumsum(0).tolist()))
    layers = {edit.layer: float(genome.shapes[edit.layer][0]) for edit in PruneLayer.legal(genome)}
    return Prices("magnitude", units, layers)
