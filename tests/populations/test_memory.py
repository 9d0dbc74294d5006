import msgspec
import pytest

from populations.individual import Individual, Outcome
from populations.memory import LESSONS, RECENT, Memory
from populations.records import LineageError
from tests.small import small_founder

FOUNDER = small_founder()


def individual(number, parent, generation, loss=1.0):
    outcome = Outcome("failed") if loss is None else Outcome("ok", loss=loss)
    return Individual(number, parent, generation, None, FOUNDER, None, None, 0, 0, 0.0, outcome)


def family():
    """The founder, two children, two grandchildren of the first; one of them failed."""
    return [
        individual(0, None, 0, 1.0),
        individual(1, 0, 1, 0.8),
        individual(2, 0, 1, 0.9),
        individual(3, 1, 2, 0.7),
        individual(4, 1, 2, None),
    ]


def test_generations_are_counted_and_numbered():
    memory = Memory(family())
    assert memory.born == {0: 1, 1: 2, 2: 2}
    assert memory.failed == 1
    assert [memory.first_id(generation) for generation in (1, 2, 3)] == [1, 3, 5]
    memory.know_all_before(2)
    assert memory.known == {FOUNDER.fingerprint}


def test_the_stopped_have_not_failed():
    outcome = Outcome("stopped", halfway_loss=0.9)
    stopped = msgspec.structs.replace(individual(5, 1, 2), outcome=outcome)
    memory = Memory([*family(), stopped])
    assert (memory.failed, memory.stopped) == (1, 1)
    assert memory.born[2] == 3
    assert len(memory.lessons_until(2)) == len(Memory(family()).lessons_until(2)) + 1


def test_the_forgotten_have_taught_all_the_same():
    memory = Memory(family())
    before = memory.lessons_until(2)
    memory.forget(1, kept={1})
    assert sorted(memory.individuals) == [0, 1, 3, 4]  # the founder stays, and so do later generations
    assert memory.lessons_until(2) == before
    assert [lesson.change(None) for lesson in before] == pytest.approx([-0.1, -0.2, -0.1])  # the latest first
    assert len(memory.lessons_until(1)) == 2
    assert memory.born.total() == 5


def test_what_is_kept_of_those_who_are_gone_is_bounded():
    memory = Memory([individual(0, None, 0)])
    founder = memory.individuals[0]
    for number in range(1, 3 * LESSONS):
        memory.add(individual(number, 0, number), founder)
        memory.forget(number, kept=set())
    assert len(memory.individuals) == 1
    assert len(memory.lessons_until(3 * LESSONS)) == LESSONS
    latest = memory.lessons_until(max(memory.born), first=max(memory.born))
    assert 0 < len(latest) == memory.born[max(memory.born)]
    assert len(memory.recent) == RECENT


def test_a_lost_parent_is_named():
    with pytest.raises(LineageError, match="individual 3 of the lineage has lost its parent 1"):
        Memory([one for one in family() if one.id != 1])
