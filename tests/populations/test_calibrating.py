"""What children teach: those that were stopped stand for the losses that were expected of them."""

import random

import pytest
from msgspec.structs import replace

from evo_topo.calibration import Calibration
from evo_topo.edits import SplitUnits
from populations.calibrating import Lesson, calibration_from, lesson_of, outlook_from, usual_change
from populations.individual import Individual, Outcome
from tests.small import small_founder

EDIT = SplitUnits((("conv1", (0,)),))


def an_individual(outcome: Outcome, edit: SplitUnits | None = EDIT, generation: int = 2) -> Individual:
    return Individual(1, 0, generation, edit, small_founder(), 0.2, -0.05, 0, 0, 0.0, outcome)


def lessons(count: int = 12) -> list[Lesson]:
    rng = random.Random(0)
    found = []
    for _ in range(count):
        halfway = rng.uniform(0.3, 0.5)
        found.append(Lesson("prune_units", rng.random(), 0.3, halfway, 0.1 + 0.5 * halfway, 100))
    return found


def test_a_child_teaches_by_its_edit_and_both_its_losses() -> None:
    parent = an_individual(Outcome("ok", loss=1.0), generation=1)
    whole = lesson_of(an_individual(Outcome("ok", halfway_loss=0.8, loss=0.7, examples=64)), parent)
    assert whole == Lesson("split_units", pytest.approx(0.15), 1.0, 0.8, 0.7, 64)
    assert whole.change(None) == pytest.approx(-0.3)
    stopped = lesson_of(an_individual(Outcome("stopped", halfway_loss=0.8)), parent)
    assert (stopped.loss, stopped.change(None)) == (None, None)
    trained_on = lesson_of(an_individual(Outcome("ok", loss=0.7), edit=None), parent)
    assert (trained_on.kind, trained_on.halfway) == (None, None)
    assert lesson_of(an_individual(Outcome("failed")), parent) is None
    assert lesson_of(parent, None) is None
    assert lesson_of(an_individual(Outcome("ok", loss=0.7)), an_individual(Outcome("stopped"))) is None
    pruned_on = an_individual(Outcome("ok", halfway_loss=0.8, loss=0.7), generation=1)
    assert lesson_of(pruned_on, parent) is None


def test_a_large_step_up_teaches_nothing_for_it_trains_for_long() -> None:
    parent = an_individual(Outcome("ok", loss=1.0), generation=1)
    child = replace(an_individual(Outcome("ok", halfway_loss=0.8, loss=0.7)), predicted_loss_change=None)
    assert lesson_of(child, parent)  # as with random prices
    assert lesson_of(replace(child, is_enlarged=True), parent) is None


def test_the_outlook_is_that_of_edited_children() -> None:
    others = [Lesson(None, None, 0.3, 0.3, 5.0, 100), Lesson("prune_units", 0.1, 0.3, 0.9, None, 50)]
    outlook = outlook_from([*lessons(), *others, Lesson("prune_units", 0.1, 0.3, None, 0.3, 100)])
    assert outlook == outlook_from(lessons())
    assert (outlook.slope, outlook.expected(0.4)) == pytest.approx((0.5, 0.3))
    assert outlook_from(lessons(7)) is None


def test_the_stopped_count_as_expected() -> None:
    whole = lessons()
    stopped = Lesson("prune_units", 0.5, 0.3, 0.6, None, 50)
    drift = Lesson(None, None, 0.3, 0.3, 0.28, 100)
    as_expected = stopped._replace(loss=0.4)
    got, want = (calibration_from([*whole, drift, last]) for last in (stopped, as_expected))
    assert got.kinds["prune_units"].x == want.kinds["prune_units"].x
    assert got.kinds["prune_units"].y == pytest.approx(want.kinds["prune_units"].y)
    assert got != calibration_from([*whole, drift])
    assert calibration_from([drift, stopped]) == Calibration()  # nothing can be expected yet


def test_what_training_alone_gains_is_told_by_trainings_about_as_long() -> None:
    whole, trained_on = lessons(), Lesson(None, None, 0.3, 0.3, 0.28, 200)
    polished = Lesson(None, None, 0.3, 0.1, 0.05, 201)
    learned = calibration_from([*whole, trained_on, polished])
    assert learned == calibration_from([*whole, trained_on])
    assert learned.kinds["prune_units"].y == pytest.approx(
        [y + 0.02 for y in calibration_from(whole).kinds["prune_units"].y]
    )


def test_what_training_alone_brings_is_that_of_short_trainings() -> None:
    drift = [
        Lesson(None, None, 0.3, None, 0.3 - gain, examples) for gain, examples in ((0.02, 100), (0.2, 999))
    ]
    assert usual_change([*lessons(), *drift]) == pytest.approx(-0.02)
    assert usual_change(lessons()) == 0.0
