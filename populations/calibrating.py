"""What the lineage has taught about prices: from predicted to recovered loss changes. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from evo_topo.calibration import Calibration
from populations.individual import Individual


def calibration_of(individuals: Iterable[Individual]) -> Calibration:
    """Learns from every child whose edit had a price; the same individuals give the same calibration.

    What a child gains by training alone says nothing of its edit, so the mean change of those that only
    trained on is taken out.

    Args:
        individuals: Of one run, each with its parent among them.
    """
    by_id = {individual.id: individual for individual in sorted(individuals, key=lambda i: i.id)}
    changes = {}
    for child in by_id.values():
        parent = None if child.parent is None else by_id.get(child.parent)
        if parent is not None and child.outcome.loss is not None and parent.outcome.loss is not None:
            changes[child.id] = child.outcome.loss - parent.outcome.loss
    drift = [change for i, change in changes.items() if by_id[i].edit is None]
    usual = fmean(drift) if drift else 0.0
    pairs = []
    for i, change in changes.items():
        child = by_id[i]
        if child.edit is not None and child.predicted_loss_change is not None:
            predicted = child.predicted_loss_change + (child.promised_loss_change or 0.0)
            pairs.append((str(child.edit.__struct_config__.tag), predicted, change - usual))
    return Calibration.fit(pairs)
