"""What the lineage has taught about prices: from predicted to recovered loss changes. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from evo_topo.calibration import Calibration
from populations.individual import Individual


class Lesson(NamedTuple):
    """What one child taught.

    Attributes:
        kind: Of its edit; None for one that only trained on.
        predicted: What its edit was predicted to bring, training included; None where it had no price.
        change: Its validation loss minus its parent's.
    """

    kind: str | None
    predicted: float | None
    change: float


def lesson_of(child: Individual, parent: Individual | None) -> Lesson | None:
    """What a child taught; None where it has no parent, or one of them has no loss."""
    if parent is None or child.outcome.loss is None or parent.outcome.loss is None:
        return None
    kind = None if child.edit is None else str(child.edit.__struct_config__.tag)
    predicted = child.predicted_loss_change
    if predicted is not None:
        predicted += child.promised_loss_change or 0.0
    return Lesson(kind, predicted, child.outcome.loss - parent.outcome.loss)


def calibration_from(lessons: Iterable[Lesson]) -> Calibration:
    """Learns from every child whose edit had a price; the same lessons give the same calibration.

    What a child gains by training alone says nothing of its edit, so the mean change of those that only
    trained on is taken out.
    """
    lessons = list(lessons)
    drift = [lesson.change for lesson in lessons if lesson.kind is None]
    usual = fmean(drift) if drift else 0.0
    return Calibration.fit(
        (lesson.kind, lesson.predicted, lesson.change - usual)
        for lesson in lessons
        if lesson.kind is not None and lesson.predicted is not None
    )


def calibration_of(individuals: Iterable[Individual]) -> Calibration:
    """What a whole lineage has taught.

    Args:
        individuals: Of one run, each with its parent among them.
    """
    by_id = {individual.id: individual for individual in sorted(individuals, key=lambda i: i.id)}
    lessons = (lesson_of(i, None if i.parent is None else by_id.get(i.parent)) for i in by_id.values())
    return calibration_from(lesson for lesson in lessons if lesson)
