"""What the lineage has taught about prices: from predicted to recovered loss changes. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from evo_topo.calibration import Calibration
from populations.hurdles import Outlook
from populations.individual import Individual

ALIKE = 2
"""Times as many examples as any edited child, up to which further training says what children gain by it.
Those who are polished train for far longer, and gain far more."""


class Lesson(NamedTuple):
    """What one child taught.

    Attributes:
        kind: Of its edit; None for one that only trained on.
        predicted: What its edit was predicted to bring, training included; None where it had no price.
        before: Its parent's validation loss.
        halfway: Its training loss at half-time; None where its training was too short to tell.
        loss: Its validation loss; None where it was stopped.
        examples: Training examples that it saw.
    """

    kind: str | None
    predicted: float | None
    before: float
    halfway: float | None
    loss: float | None
    examples: int

    def change(self, outlook: Outlook | None) -> float | None:
        """Its validation loss minus its parent's: if it was stopped, as expected; None where none can be."""
        if self.loss is not None:
            return self.loss - self.before
        if outlook is None or self.halfway is None:
            return None
        return outlook.expected(self.halfway) - self.before


def lesson_of(child: Individual, parent: Individual | None) -> Lesson | None:
    """What a child taught; None where it has no parent, or one of them failed.

    Whoever is pruned on from a polished parent, born in the same generation, is like no other child, nor is a
    large step up, which trains for long.
    """
    outcome = child.outcome
    if parent is None or parent.outcome.loss is None or (outcome.loss, outcome.halfway_loss) == (None, None):
        return None
    if parent.generation == child.generation or child.is_enlarged:
        return None
    predicted = child.predicted_loss_change
    kind = None if child.edit is None else str(child.edit.__struct_config__.tag)
    if predicted is not None:
        predicted += child.promised_loss_change or 0.0
    losses = parent.outcome.loss, outcome.halfway_loss, outcome.loss
    return Lesson(kind, predicted, *losses, outcome.examples)


def outlook_from(lessons: Iterable[Lesson]) -> Outlook | None:
    """Learns from every child that was edited and trained to the end; the same lessons give the same outlook.

    Children that only train on, as the polished do, are no guide to the others: nothing is to be made good.
    """
    return Outlook.fit(
        (lesson.halfway, lesson.loss)
        for lesson in lessons
        if lesson.kind is not None and lesson.halfway is not None and lesson.loss is not None
    )


def calibration_from(lessons: Iterable[Lesson]) -> Calibration:
    """Learns from every child whose edit had a price; the same lessons give the same calibration.

    What a child gains by training alone says nothing of its edit, so the mean change of those that only
    trained on, for about as long, is taken out. Those that were stopped count with the loss that was
    expected of them: without them, their kinds of edits would look better than they are.
    """
    lessons = list(lessons)
    outlook, usual = outlook_from(lessons), usual_change(lessons)
    changes = [(lesson, change) for lesson in lessons if (change := lesson.change(outlook)) is not None]
    return Calibration.fit(
        (lesson.kind, lesson.predicted, change - usual)
        for lesson, change in changes
        if lesson.kind is not None and lesson.predicted is not None
    )


def usual_change(lessons: Iterable[Lesson]) -> float:
    """Mean loss change of those that only trained on, for about as long as others; 0 where there are none."""
    lessons = list(lessons)
    most = ALIKE * max((lesson.examples for lesson in lessons if lesson.kind is not None), default=0)
    drift = [lesson.change(None) for lesson in lessons if lesson.kind is None and lesson.examples <= most]
    known = [change for change in drift if change is not None]
    return fmean(known) if known else 0.0


def lessons_of(individuals: Iterable[Individual]) -> list[Lesson]:
    """What each child of a whole lineage taught.

    Args:
        individuals: Of one run, each with its parent among them.
    """
    by_id = {individual.id: individual for individual in sorted(individuals, key=lambda i: i.id)}
    lessons = (lesson_of(i, None if i.parent is None else by_id.get(i.parent)) for i in by_id.values())
    return [lesson for lesson in lessons if lesson]
