"""Cheap measures for all units, better ones for the promising, the exact one for the few."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from torch import Tensor, nn

from evo_topo.genome import Genome
from evo_topo.saliency.ablation import ablation, mean_loss
from evo_topo.saliency.baselines import magnitude
from evo_topo.saliency.obd import obd_saliency


class RankedUnit(NamedTuple):
    """A unit and how far the cascade took it.

    Attributes:
        group: Its unit group.
        unit: Its number in the group.
        stage: The last measure it was given.
        value: That measure: relative weight magnitude, predicted or measured loss increase.
    """

    group: str
    unit: int
    stage: Literal["magnitude", "obd", "ablation"]
    value: float


def cascade(
    model: nn.Module,
    genome: Genome,
    inputs: Tensor,
    targets: Tensor,
    shortlist: float = 1.0,
    finalists: int = 16,
) -> list[RankedUnit]:
    """Ranks all units from the least to the most important, spending where it decides.

    Magnitude (relative to the group's mean) orders all; the `shortlist` share with the smallest goes on
    to OBD; of these the `finalists` with the smallest prediction are removed one by one and measured. OBD
    takes one pass for however many units, so a shorter list saves no time; it shows what magnitude misses.

    Args:
        model: Trained network of `genome`.
        genome: Its genome.
        inputs: Normalised inputs (examples, *input_shape).
        targets: Class of each example (examples,).
        shortlist: Share of units that OBD looks at, from 0 to 1.
        finalists: Units that are measured.

    Returns:
        All units: the measured ones first, then those predicted, then the rest, each in ascending order.
    """
    ranked = [
        RankedUnit(name, unit, "magnitude", value)
        for name, norms in magnitude(model, genome).items()
        for unit, value in enumerate((norms / norms.mean().clamp(min=1e-30)).tolist())
    ]
    ranked.sort(key=lambda item: item.value)
    cut = math.ceil(shortlist * len(ranked))
    saliency = obd_saliency(model, genome, inputs, targets, "sampled") if cut else {}
    predicted = [
        RankedUnit(group, unit, "obd", float(saliency[group][unit])) for group, unit, _, _ in ranked[:cut]
    ]
    predicted.sort(key=lambda item: item.value)
    before = mean_loss(model, inputs, targets)
    measured = [
        RankedUnit(group, unit, "ablation", ablation(model, genome, {group: [unit]}, inputs, targets, before))
        for group, unit, _, _ in predicted[:finalists]
    ]
    measured.sort(key=lambda item: item.value)
    return [*measured, *predicted[finalists:], *ranked[cut:]]
