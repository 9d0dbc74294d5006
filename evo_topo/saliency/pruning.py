"""Pruning to a budget of MACs in one go: choose, compensate, measure again, in steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from evo_topo.channels import channel_origins
from evo_topo.cost import count_macs
from evo_topo.curvature import Curvature
from evo_topo.edits import EditError, PruneUnits
from evo_topo.genome import Genome
from evo_topo.inheritance import inherit
from evo_topo.saliency.joint import cheapest_units
from evo_topo.saliency.obd import GateStatistics, cautious_saliency, gate_statistics
from evo_topo.saliency.reconstruction import reconstruct
from evo_topo.units import unit_table


class Pruned(NamedTuple):
    """A network pruned to a budget.

    Attributes:
        edit: Removes all units at once from the genome it started from.
        genome: The child, ``edit.apply(genome)``.
        model: Its network, with the survivors' weights refit where compensation was asked for.
        predicted_loss_change: Sum of what each step was predicted to cost (`cautious_saliency`), before
            compensation.
    """

    edit: PruneUnits
    genome: Genome
    model: nn.Module
    predicted_loss_change: float


def prune_to(
    model: nn.Module,
    genome: Genome,
    macs: int,
    inputs: Tensor,
    targets: Tensor,
    steps: int = 6,
    compensate: bool = True,
    curvature: Curvature = "sampled",
    seed: int = 0,
) -> Pruned:
    """Removes units until a network has at most so many MACs, at the least predicted loss.

    A quadratic model of the loss holds nearby only. So the way is cut into steps of equal ratio; in each the
    gates of what is left are measured again, units of all groups go by predicted loss per MAC saved
    (`cheapest_units`), and the survivors are refit to the original network (`reconstruct`).

    Args:
        model: Trained network of `genome`, from `build` or `inherit`; it stays as it is.
        genome: Its genome.
        macs: Most MACs of the result. No unit that the last step removed would fit back in.
        inputs: Normalised inputs (examples, *input_shape) to measure and to refit on.
        targets: Class of each example (examples,).
        steps: How often the gates are measured. More are better and slower.
        compensate: Whether survivors are refit. Without it the weights are those of ``inherit``.
        curvature: ``sampled`` or ``exact``, as in `gate_statistics`.
        seed: Seed of the drawn labels and of the positions that layers are refit on.

    Raises:
        EditError: When one channel per layer takes more than `macs`, or nothing has to go.
        TypeError: When survivors are to be refit and the model comes neither from `build` nor from `inherit`.
        ValueError: When `steps` is below 1.
    """
    start = count_macs(genome)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if not 0 < macs < start:
        raise EditError(f"macs: expected between 1 and {start - 1:,}, one less than now, got {macs:,}")
    edit: PruneUnits | None = None
    child, child_model, predicted = genome, model, 0.0
    for step in range(1, steps + 1):
        goal = start * (macs / start) ** (step / steps) if step < steps else macs
        if count_macs(child) <= goal:
            continue
        statistics = gate_statistics(child_model, child, inputs, targets, curvature, seed=seed + step)
        part = as_edit(statistics, cheapest_units(statistics, child, goal))
        predicted += cautious_saliency(statistics, dict(part.units))
        child_model = inherit(child_model, child, part)
        edit = part if edit is None else composed(genome, edit, part)
        child = edit.apply(genome)
        if compensate:
            reconstruct(child_model, model, genome, edit, inputs, seed=seed + step)
    assert edit is not None  # the last goal is below the start
    return Pruned(edit, child, child_model, predicted)


def composed(genome: Genome, first: PruneUnits, second: PruneUnits) -> PruneUnits:
    """One edit of `genome` that removes what `first` removes, and then `second` from its child."""
    origins = channel_origins(genome, first.unit_map(genome))
    before, after = unit_table(genome), unit_table(first.apply(genome))
    gone = [(name, unit) for name, units in first.units for unit in units]
    for name, units in second.units:
        for unit in units:
            makers = after.groups[name].makers.items()
            maker, channel = next((maker, held[unit][0]) for maker, held in makers if held[unit])
            member = before.members[maker][origins[maker][channel]]
            assert member is not None  # a channel that is no longer tied was free before
            gone.append(member)
    return _edit_of(gone)


def as_edit(statistics: GateStatistics, columns: Iterable[int]) -> PruneUnits:
    """The edit that removes the units of some columns."""
    chosen = sorted(columns)
    return _edit_of(
        [
            (name, column - where.start)
            for name, where in statistics.columns.items()
            for column in chosen
            if where.start <= column < where.stop
        ]
    )


def _edit_of(units: Iterable[tuple[str, int]]) -> PruneUnits:
    """The edit that removes units given by group and number."""
    by_group: dict[str, list[int]] = {}
    for name, unit in units:
        by_group.setdefault(name, []).append(unit)
    return PruneUnits(tuple([(name, tuple(sorted(some))) for name, some in sorted(by_group.items())]))
